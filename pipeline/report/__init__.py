"""The report page: `report` is the stage, each module a part of the page."""

from pipeline.report.build import report

__all__ = ["report"]
