"""Check of a raw data set, which reports every fault at once."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from scanseg.dataset.description import DESCRIPTION_FILE
from scanseg.dataset.inspection import CaseFindings, inspect_case
from scanseg.dataset.intensities import (
    ChannelRanges,
    colour_ranges,
    describe_colours,
    find_mixed_scales,
    find_unusual_ct,
    join_ranges,
)
from scanseg.dataset.outliers import CaseMeasurements, find_outliers
from scanseg.dataset.raw import RawCase, RawDataset, open_dataset
from scanseg.dataset.splits import check_splits
from scanseg.errors import InputError, refuse_faults
from scanseg.imaging import DECODERS, MEDICAL_DECODERS, count_channels, find_reorientation
from scanseg.messages import counted, first_lines, listed
from scanseg.runtime import RunContext, count_launched, map_cases, started_early
from scanseg.specs import DatasetSpec


@dataclass(frozen=True)
class CheckReport:
    """Contents of a data set without faults."""

    dataset: str
    """Name of the data set."""
    num_cases: int
    num_axes: int
    """Spatial axes of the images: 2 or 3."""
    num_channels: int
    shape_range: tuple[tuple[int, ...], tuple[int, ...]]
    """Smallest and largest number of voxels along each axis."""
    spacing_range: tuple[tuple[float, ...], tuple[float, ...]]
    """Smallest and largest spacing in mm along each axis."""
    orientations: dict[str, int]
    """Number of cases of each orientation, by axis codes of x, y, z such as `RAS`. Empty for 2D images."""
    label_voxels: dict[str, int]
    """Number of voxels of each label or region over all cases."""
    label_cases: dict[str, int]
    """Number of cases with each label or region."""
    channel_names: tuple[str, ...]
    """Names of the channels."""
    intensity_ranges: ChannelRanges
    """Type and range of each channel over all cases."""
    warnings: tuple[str, ...]
    """Unusual properties that do not prevent training."""
    kept: float = 1.0
    """Median fraction of the voxels of a case inside the smallest box of all nonzero voxels."""
    decisions: tuple[str, ...] = ()
    """Decisions that planning derives from these contents, one line each. Empty: not derived."""
    has_spacing: bool = True
    """False if the images are pictures without spacing."""

    def lines(self) -> list[str]:
        """Return the report as lines of text, with at most twenty warnings."""
        axes = ("z", "y", "x")[-self.num_axes :]
        shapes = " x ".join(_range_text(*pair, digits=0) for pair in zip(*self.shape_range, strict=True))
        spacings = " x ".join(_range_text(*pair, digits=4) for pair in zip(*self.spacing_range, strict=True))
        orientations = ", ".join(
            codes if count == self.num_cases else f"{codes} in {counted(count, 'case')}"
            for codes, count in self.orientations.items()
        )
        unit = "pixel" if self.num_axes == 2 else "voxel"
        labels = [
            f"label {name}: {counted(voxels, unit)} in {counted(self.label_cases[name], 'case')}"
            for name, voxels in self.label_voxels.items()
        ]
        return [
            f"{self.dataset}: {counted(self.num_cases, 'case')}, {counted(self.num_channels, 'channel')}, "
            f"{self.num_axes} axes",
            f"shape ({', '.join(axes)}): {shapes} {unit}s",
            *([f"spacing ({', '.join(axes)}): {spacings} mm"] if self.has_spacing else []),
            *([f"orientation: {orientations}"] if orientations else []),
            *describe_colours(self.intensity_ranges, self.channel_names),
            *labels,
            *self.decisions,
            *first_lines([f"warning: {warning}" for warning in self.warnings]),
        ]


@contextmanager
def checked_early(path: Path, *, context: RunContext) -> Iterator[None]:
    """Start the worker processes that check a data set in the block.

    They start while the block imports PyTorch. Faults are left to the check.

    Args:
        path: Folder of the data set. Other paths start nothing, like trainings of several processes.
        context: Worker processes.
    """
    dataset = None
    if count_launched() == 1 and (path / DESCRIPTION_FILE).is_file():
        with suppress(InputError, OSError):
            dataset = open_dataset(path)
            context = context.for_images(dataset.image_bytes)
    if dataset is None:
        yield
        return
    with started_early(_read_header, dataset.cases, context=context):
        yield


def _read_header(case: RawCase) -> None:
    """Read a header, which loads the libraries.

    Voxels may take longer than the block.
    """
    count_channels(case.images[0])


def check_dataset(dataset: RawDataset, *, context: RunContext) -> CheckReport:
    """Read every case and compare it with the data set's description.

    Faults are:

    - files that cannot be read, and NaN,
    - constant images,
    - a wrong number of channels,
    - channels or a label map on another grid than the image,
    - unknown label values,
    - images of two and of three axes in one data set,
    - colours of different scales, such as 8 and 16 bits,
    - a number of cases that differs from `numTraining` in `dataset.json`,
    - folds with unknown cases, without training cases, or with a case in both parts.

    Warnings are:

    - files and cases that are not used: other endings, hidden images, folders, cases in no fold,
    - labels that never occur, cases without foreground or annotation, foreground that cropping removes,
    - cases whose spacing, size or intensities are far from the other cases (`scanseg.dataset.outliers`),
    - different orientations, a constant channel among others, folds without validation cases.

    Args:
        dataset: Data set to check.
        context: Worker processes and progress.

    Raises:
        InputError: The data set has faults. The message lists every fault of every case.
    """
    findings = map_cases(
        partial(inspect_case, spec=dataset.spec),
        dataset.cases,
        context=context,
        task="checking",
    )
    faults = [f"case {found.case}: {fault}" for found in findings for fault in found.faults]
    if not findings:
        faults.append("no cases. Add images and label maps.")
    faults += _check_axes(findings)
    faults += find_mixed_scales(
        colour_ranges({found.case: found.intensity_ranges for found in findings}, dataset.spec.channel_names)
    )
    faults += _check_number(dataset)
    split_faults, split_warnings = check_splits(dataset)
    refuse_faults(dataset.path, faults + split_faults)
    return _report(dataset, findings, split_warnings)


def _is_medical(spec: DatasetSpec) -> bool:
    """Return whether the format of a data set holds a spacing."""
    return DECODERS.get(spec.file_ending.lower()) in MEDICAL_DECODERS


def _report(
    dataset: RawDataset, findings: Sequence[CaseFindings], split_warnings: Sequence[str]
) -> CheckReport:
    """Summarize cases without faults."""
    spec = dataset.spec
    label_voxels = {
        name: sum(found.value_counts.get(value, 0) for found in findings for value in values)
        for name, values in spec.foreground.items()
    }
    label_cases = {
        name: sum(any(value in found.value_counts for value in values) for found in findings)
        for name, values in spec.foreground.items()
    }
    ranges = join_ranges([found.intensity_ranges for found in findings])
    shapes = [found.shape for found in findings if found.shape]
    spacings = [found.spacing for found in findings if found.spacing]
    return CheckReport(
        dataset=spec.name,
        num_cases=len(findings),
        num_axes=len(shapes[0]),
        num_channels=spec.num_channels,
        shape_range=(tuple(map(min, *shapes, shapes[0])), tuple(map(max, *shapes, shapes[0]))),
        spacing_range=(tuple(map(min, *spacings, spacings[0])), tuple(map(max, *spacings, spacings[0]))),
        orientations=dict(_count_orientations(findings).most_common()),
        label_voxels=label_voxels,
        label_cases=label_cases,
        channel_names=spec.channel_names,
        intensity_ranges=ranges,
        warnings=(
            *dataset.warnings,
            *_orientation_warnings(findings),
            *find_unusual_ct(ranges, spec.channel_names),
            *find_outliers(_measurements(findings), spec.channel_names),
            *_warnings(spec, findings, label_voxels),
            *split_warnings,
        ),
        has_spacing=_is_medical(spec) or any(size != 1 for spacing in spacings for size in spacing),
        kept=median([found.kept for found in findings if found.kept is not None]),
    )


def _count_orientations(findings: Sequence[CaseFindings]) -> Counter[str]:
    """Count the cases of each orientation."""
    return Counter(found.orientation for found in findings if found.orientation is not None)


def _orientation_warnings(findings: Sequence[CaseFindings]) -> list[str]:
    """Return a warning if cases are stored in different orientations."""
    counts = _count_orientations(findings)
    if len(counts) < 2:
        return []
    usual = min(counts, key=lambda codes: (-counts[codes], codes))
    others = listed(
        [f"{found.case} {found.orientation}" for found in findings if found.orientation not in (None, usual)]
    )
    return [
        f"orientation: {counted(counts[usual], 'case')} in {usual}, and {others}. Training and prediction bring all of "
        f"them to {usual}"
    ]


def _warnings(
    spec: DatasetSpec, findings: Sequence[CaseFindings], label_voxels: dict[str, int]
) -> tuple[str, ...]:
    """Return the unusual properties that do not prevent training."""
    foreground = {value for values in spec.foreground.values() for value in values}
    bare = [found for found in findings if not foreground & found.value_counts.keys()]
    ignored = [found.case for found in bare if spec.ignore_label in found.value_counts]
    empty = [found.case for found in bare if spec.ignore_label not in found.value_counts]
    cropped = [
        f"{found.case} ({counted(found.cropped_foreground, 'voxel')})"
        for found in findings
        if found.cropped_foreground
    ]
    warnings = [f"label {name} never occurs" for name, voxels in label_voxels.items() if not voxels]
    if empty:
        warnings.append(f"{counted(len(empty), 'case')} without foreground: {listed(empty)}")
    if ignored:
        warnings.append(
            f"{counted(len(ignored), 'case')} without foreground, but with the ignore label: {listed(ignored)}"
        )
    if cropped:
        warnings.append(
            f"{counted(len(cropped), 'case')} with foreground outside the nonzero part of the image, which cropping "
            f"removes: {listed(cropped)}. Check the images, or plan with --set preprocessing.crop_to_nonzero=false"
        )
    return (*warnings, *(f"case {found.case}: {text}" for found in findings for text in found.warnings))


def _measurements(findings: Sequence[CaseFindings]) -> list[CaseMeasurements]:
    """Return the measurements of every case in the most frequent orientation."""
    counts = _count_orientations(findings)
    usual = min(counts, key=lambda codes: (-counts[codes], codes)) if counts else None
    measured = []
    for found in findings:
        if found.spacing is None or found.shape is None:
            continue
        order = tuple(range(len(found.shape)))
        if usual is not None and found.orientation is not None:
            order, _ = find_reorientation(found.orientation, usual)
        measured.append(
            CaseMeasurements(
                found.case,
                spacing=tuple(found.spacing[axis] for axis in order),
                shape=tuple(found.shape[axis] for axis in order),
                channels=found.channels,
            )
        )
    return measured


def _check_number(dataset: RawDataset) -> list[str]:
    """Compare the number of cases with the description."""
    described, found = dataset.num_described, len(dataset.cases)
    if described is None or described == found:
        return []
    return [
        f"expected {counted(described, 'training case')} by numTraining in {DESCRIPTION_FILE}, got {found}. Add the "
        "missing cases, or correct the number."
    ]


def _check_axes(findings: Sequence[CaseFindings]) -> list[str]:
    """List the cases whose number of axes differs from the majority."""
    num_axes = Counter(len(found.shape) for found in findings if found.shape)
    if len(num_axes) < 2:
        return []
    usual = num_axes.most_common(1)[0][0]
    others = [found for found in findings if found.shape and len(found.shape) != usual]
    named = listed([f"{found.case} {found.shape}" for found in others])
    return [
        f"expected images of {usual} axes, got {len(others)} of another number: {named}. Keep one kind in a data set."
    ]


def _range_text(low: float, high: float, *, digits: int) -> str:
    """Return the common value, or the smallest and the largest, as text."""
    texts = [f"{round(value, digits):g}" if digits else str(value) for value in (low, high)]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]}-{texts[1]}"
