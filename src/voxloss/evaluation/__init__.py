"""Scores per case, the one long table that holds them, and the statistics over it.

`metrics` scores one prediction against its reference, `scores` reads, writes and checks the table, `significance`
compares the losses. Nothing here knows of images on disk or of training.
"""
