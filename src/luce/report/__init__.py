"""An evaluation as one HTML page that needs nothing else: no network, no other file."""

from luce.report.collect import evaluation_report, training_report
from luce.report.content import ClassScores, Confusion, Mistake, Problem, Report, Summary
from luce.report.render import render

__all__ = [
    "ClassScores",
    "Confusion",
    "Mistake",
    "Problem",
    "Report",
    "Summary",
    "evaluation_report",
    "render",
    "training_report",
]
