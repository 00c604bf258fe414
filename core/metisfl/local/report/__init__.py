"""report.html: what a run did, in one file that needs no network."""

from metisfl.local.report.render import write_report

__all__ = ["write_report"]
