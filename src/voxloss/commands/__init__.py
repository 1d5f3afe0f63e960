"""The command line: one file per command, parser and action side by side."""
