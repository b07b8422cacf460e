"""Files of a report: JSON, CSV and Markdown."""

from pathlib import Path

from scanseg.evaluation.instance_folders import instance_rows
from scanseg.evaluation.rules import METRIC_RULES
from scanseg.evaluation.table import case_rows, instance_case_rows, summary_rows
from scanseg.files import write_text
from scanseg.messages import counted
from scanseg.specs import InstanceReport, Report
from scanseg.tables import as_csv, as_markdown


def report_files(path: Path) -> tuple[Path, ...]:
    """Return the files of a report: JSON, CSV and Markdown.

    Args:
        path: JSON file of the report. The others have its name with another ending.
    """
    return (path, *(beside for ending in (".csv", ".md") if (beside := path.with_suffix(ending)) != path))


def write_report(report: Report | InstanceReport, path: Path) -> None:
    """Write a report as JSON, CSV and Markdown.

    CSV has the scores of the cases, and Markdown the summary.

    Args:
        report: Report of `evaluate` or `evaluate_instances`.
        path: JSON file of the report. Its folder is created if it is missing.

    Raises:
        OSError: A file cannot be written.
    """
    if isinstance(report, Report):
        cases, summary = case_rows(report), summary_rows(report)
        note = f"Rule: {METRIC_RULES[report.rule].description}. Distances are in {report.distance_unit}."
    else:
        cases, summary = instance_case_rows(report), instance_rows(report)
        note = f"Instances: {report.instances}, matched at an overlap (IoU) of at least {report.iou:g}."
    left_out = report.unpredicted
    if left_out:
        note += f" {counted(len(left_out), 'reference')} without a prediction left out."
    texts = {
        ".csv": as_csv(cases),
        ".md": f"# {report.predictions} against {report.references}\n\n{as_markdown(summary)}\n\n{note}\n",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    for beside in report_files(path)[1:]:
        write_text(beside, texts[beside.suffix])
    write_text(path, report.to_json())
