"""Tables, figures and the page of a study, all made from its files."""

from voxloss.report.build import VIEWER_CASES, build_report, print_tables

__all__ = ["VIEWER_CASES", "build_report", "print_tables"]
