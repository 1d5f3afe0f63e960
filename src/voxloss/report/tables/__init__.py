"""Tables of scores, tests and verdicts, and their formats."""
