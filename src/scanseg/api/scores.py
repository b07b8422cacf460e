"""Functions that score predictions."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from scanseg.api.paths import AnyPath
from scanseg.progress import ProgressChoice
from scanseg.progress_display import display
from scanseg.runtime import RunContext
from scanseg.specs import DistanceUnit, InstanceReport, InstanceSource, Report, RuleName


def evaluate(
    predictions: AnyPath,
    references: AnyPath,
    *,
    cases: Sequence[str] | None = None,
    only_predicted: bool = False,
    rule: RuleName = "skip",
    distance_unit: DistanceUnit = "mm",
    tolerance_mm: float = 2.0,
    label_tolerances_mm: Mapping[str, float] | None = None,
    tolerance_preset: str | None = None,
    num_workers: int | None = None,
    progress: ProgressChoice = True,
) -> Report:
    """Score predicted label maps.

    Args:
        predictions: Folder of predicted label maps, or one file.
        references: Folder of reference label maps of the same names, or one file.
        cases: Names of the cases to score. `None`: all, and each must have a prediction.
        only_predicted: Leave out references without a prediction. The report names them.
        rule: Name of the metric rule, see `scanseg.evaluation.METRIC_RULES`.
        distance_unit: Unit of HD95 and ASD. `voxels` ignores the spacing.
        tolerance_mm: Tolerance of the normalized surface Dice (NSD), in mm.
        label_tolerances_mm: Tolerances of single labels by name, in mm.
        tolerance_preset: Tolerances of a protocol: `abdomen`.
        num_workers: Processes that score. `None`: one per core, at most 16.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Raises:
        InputError: Files are missing or faulty. One message lists all faults.
        UsageError: The rule, unit or preset is unknown.

    Example:
        >>> import scanseg
        >>> report = scanseg.evaluate("predictions", "REFERENCES")
        >>> report.summary.mean_over_labels.dice
        1.0
    """
    from scanseg.evaluation import evaluate as score

    with display(progress) as shown:
        return score(
            Path(predictions),
            Path(references),
            cases=cases,
            only_predicted=only_predicted,
            rule=rule,
            distance_unit=distance_unit,
            tolerance_mm=tolerance_mm,
            label_tolerances_mm=label_tolerances_mm,
            tolerance_preset=tolerance_preset,
            context=RunContext(num_workers=num_workers, progress=shown),
        )


def evaluate_instances(
    predictions: AnyPath,
    references: AnyPath,
    *,
    instances: InstanceSource = "numbers",
    iou: float = 0.5,
    border: int = 2,
    cases: Sequence[str] | None = None,
    only_predicted: bool = False,
    num_workers: int | None = None,
    progress: ProgressChoice = True,
) -> InstanceReport:
    """Score predicted instances against instance maps.

    The report counts found, missed and false instances, and has their F1.

    Args:
        predictions: Folder of predicted maps, or one file.
        references: Folder of instance maps of the same names, or one file.
        instances: How predictions separate instances: `numbers`, `components`, `grown` or `separated`.
        iou: Least intersection over union of a matched pair.
        border: Instances within this many pixels of the ends of y and x are left out on both sides.
        cases: Names of the cases to score. `None`: all, and each must have a prediction.
        only_predicted: Leave out references without a prediction. The report names them.
        num_workers: Processes that score. `None`: one per core, at most 16.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Raises:
        InputError: Files are missing or faulty. One message lists all faults.
        UsageError: `instances` is unknown, or the references are label maps.

    Example:
        >>> import scanseg
        >>> report = scanseg.evaluate_instances("instances", "instancesTs")
        >>> report.summary.f1.mean
        1.0
    """
    from scanseg.evaluation import evaluate_instances as score

    with display(progress) as shown:
        return score(
            Path(predictions),
            Path(references),
            instances=instances,
            iou=iou,
            border=border,
            cases=cases,
            only_predicted=only_predicted,
            context=RunContext(num_workers=num_workers, progress=shown),
        )
