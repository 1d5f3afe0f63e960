"""Tables, figures and page of a study, built from its files."""

from voxloss.report.build import VIEWER_CASES, build_report, print_tables

__all__ = ["VIEWER_CASES", "build_report", "print_tables"]
