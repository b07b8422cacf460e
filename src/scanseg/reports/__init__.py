"""Reports in one HTML file, and pictures of images with label maps."""

from scanseg.reports.calibrating import calibrate
from scanseg.reports.charts import make_chart
from scanseg.reports.colours import colours_of_labels
from scanseg.reports.page import Cell, Page, Section, Table, check_packages, write_page
from scanseg.reports.score_sections import score_sections
from scanseg.reports.showing import Layout, Plane, show
from scanseg.reports.writing import write_report

__all__ = [
    "Cell",
    "Layout",
    "Page",
    "Plane",
    "Section",
    "Table",
    "calibrate",
    "check_packages",
    "colours_of_labels",
    "make_chart",
    "score_sections",
    "show",
    "write_page",
    "write_report",
]
