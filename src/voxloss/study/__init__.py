"""A study: its folder, how it is created, run, followed, planned, and what it predicts."""
