"""Tables, figures and a page from the files of a study's folder; nothing here trains, predicts or scores."""

from voxloss.report.build import build_report, print_tables

__all__ = ["build_report", "print_tables"]
