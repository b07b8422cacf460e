"""Functions for raw data sets and images."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from scanseg.api.paths import AnyPath
from scanseg.dataset import CheckReport, check_dataset, open_dataset
from scanseg.errors import UsageError
from scanseg.progress import ProgressChoice
from scanseg.progress_display import display
from scanseg.runtime import RunContext
from scanseg.settings import as_tuple

if TYPE_CHECKING:
    from scanseg.converters import Conversion, FolderInspection, FolderOptions, OverlapRule, SourceInspection
    from scanseg.imaging import SourceSummary


def check(
    dataset: AnyPath, *, num_workers: int | None = None, progress: ProgressChoice = True
) -> CheckReport:
    """Check a raw data set in nnU-Net's layout.

    Args:
        dataset: Folder of the data set.
        num_workers: Processes that read cases. `None`: one per core, at most 16; 0 for small data sets.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Raises:
        InputError: The data set is faulty. One message lists all faults.

    Example:
        >>> import scanseg
        >>> report = scanseg.check("DATASET")
        >>> report.num_cases, report.num_axes
        (4, 2)
    """
    from scanseg.planning import describe_dataset

    raw = open_dataset(Path(dataset))
    with display(progress) as shown:
        context = RunContext(num_workers=num_workers, progress=shown)
        report = check_dataset(raw, context=context.for_images(raw.image_bytes))
    orientation = next(iter(report.orientations), None)
    decisions = describe_dataset(
        raw.spec,
        num_axes=report.num_axes,
        orientation=orientation,
        kept=report.kept,
        ranges=report.intensity_ranges,
    )
    return replace(report, decisions=tuple(decisions))


def convert(
    name: str,
    source: AnyPath,
    output: AnyPath,
    *,
    label_maps: AnyPath | None = None,
    labels: "str | os.PathLike[str] | Mapping[str, object] | None" = None,
    channels: Sequence[str] = (),
    overlap: "OverlapRule" = "refuse",
    dataset_name: str | None = None,
    test_fraction: float | None = None,
    num_workers: int | None = None,
    progress: ProgressChoice = True,
) -> "Conversion":
    """Convert a folder or a public data set to nnU-Net's raw layout.

    The published split of a known data set is kept.

    Args:
        name: `folder` for images and label maps of your own, or the name of a data set, see
            `scanseg.converters.NAMED_DATASETS`.
        source: Folder of the images, or of the data set in one of its original forms.
        output: Folder to write. It appears when the conversion is complete.
        label_maps: Folder of the label maps. `None`: inside `source`. Only for `folder`, as the next three.
        labels: Values or colours of the labels by name, as a mapping, a text such as `liver=1,spleen=2`, or a file.
            `None`: all values found.
        channels: Names of the channels in order. Names of image files may end with them.
        overlap: Treatment of voxels in several structure masks: `refuse`, or `last` for the last label.
        dataset_name: Name of the converted data set. Defaults to the name of a known data set, else to that of the
            output folder.
        test_fraction: Fraction of the cases to draw as a test set, if the source has none. Defaults to the data
            set's own.
        num_workers: Processes that convert. `None`: one per core, at most 16.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Raises:
        InputError: The source is in no known form, or is faulty. One message lists all faults, and nothing is
            written.
        UsageError: The name is unknown, the output exists, or the labels have another form.

    Example:
        >>> import scanseg
        >>> conversion = scanseg.convert("kvasir-seg", "KVASIR", "data/kvasir-seg")
        >>> sorted(conversion.num_cases)
        ['test', 'train']
        >>> own = scanseg.convert("folder", "KVASIR", "data/polyps", labels={"polyp": 255})
        >>> own.name, own.num_cases
        ('polyps', {'train': 10})
    """
    from scanseg.converters import OWN_FOLDER, convert_dataset, convert_folder, find_dataset

    options = _folder_options(label_maps, labels, channels, overlap)
    is_own = name == OWN_FOLDER.name
    if not is_own and options != _folder_options():
        raise UsageError(
            f"{name}: expected no label maps, labels, channels or overlap. They are for `folder`."
        )
    folders = (Path(source), Path(output))
    with display(progress) as shown:
        context = RunContext(num_workers=num_workers, progress=shown)
        if is_own:
            return convert_folder(
                *folders, options, name=dataset_name, test_fraction=test_fraction, context=context
            )
        return convert_dataset(
            find_dataset(name), *folders, name=dataset_name, test_fraction=test_fraction, context=context
        )


def inspect_folder(
    images: AnyPath,
    label_maps: AnyPath | None = None,
    *,
    labels: "str | os.PathLike[str] | Mapping[str, object] | None" = None,
    channels: Sequence[str] = (),
    num_workers: int | None = None,
    progress: ProgressChoice = True,
) -> "FolderInspection":
    """Inspect a folder of images and label maps without converting it.

    It shows the cases and labels that `convert("folder", ...)` uses. Up to 20 cases are read.

    Args:
        images: Folder of the images.
        label_maps: Folder of the label maps. `None`: inside `images`.
        labels: As for `convert`.
        channels: As for `convert`.
        num_workers: Processes that read cases. `None`: one per core, at most 16.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Raises:
        InputError: A folder is missing or has no known layout.
        UsageError: The labels have another form.

    Example:
        >>> import scanseg
        >>> found = scanseg.inspect_folder("KVASIR", labels={"polyp": 255})
        >>> len(found.labelled), [label.name for label in found.labels]
        (10, ['background', 'polyp'])
    """
    from scanseg.converters import inspect_folder as inspect

    options = _folder_options(label_maps, labels, channels)
    with display(progress) as shown:
        return inspect(Path(images), options, context=RunContext(num_workers=num_workers, progress=shown))


def inspect_source(
    name: str,
    source: AnyPath,
    *,
    test_fraction: float | None = None,
    num_workers: int | None = None,
    progress: ProgressChoice = True,
) -> "SourceInspection":
    """Read and check a public data set as `convert` does, without writing.

    Every case is read. For a folder of your own, use `inspect_folder`.

    Args:
        name: Name of the data set, see `scanseg.converters.NAMED_DATASETS`.
        source: Folder of the data set in one of its original forms.
        test_fraction: As for `convert`.
        num_workers: Processes that read cases. `None`: one per core, at most 16.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Raises:
        InputError: The source is in no known form, or is faulty. One message lists all faults.
        UsageError: The name is unknown, or the test set cannot be drawn.

    Example:
        >>> import scanseg
        >>> found = scanseg.inspect_source("kvasir-seg", "KVASIR")
        >>> sorted(found.num_cases), found.channels
        (['test', 'train'], ('R', 'G', 'B'))
    """
    from scanseg.converters import find_dataset, inspect_dataset

    with display(progress) as shown:
        context = RunContext(num_workers=num_workers, progress=shown)
        return inspect_dataset(find_dataset(name), Path(source), test_fraction=test_fraction, context=context)


def list_series(source: AnyPath) -> "SourceSummary":
    """List the DICOM series of a folder or zip file.

    Only headers are read.

    Args:
        source: Folder with its subfolders, or zip file.

    Raises:
        InputError: The source is missing, damaged or unsafe, or pydicom is not installed.

    Example:
        >>> import scanseg
        >>> found = scanseg.list_series("SERIES")
        >>> found.series[0].modality, found.series[0].shape
        ('CT', (4, 5, 6))
    """
    from scanseg.imaging import summarize_series

    return summarize_series(Path(source))


def _folder_options(
    label_maps: AnyPath | None = None,
    labels: "str | os.PathLike[str] | Mapping[str, object] | None" = None,
    channels: Sequence[str] = (),
    overlap: "OverlapRule" = "refuse",
) -> "FolderOptions":
    """Return the choices for an own folder."""
    from scanseg.converters import FolderOptions

    return FolderOptions(
        label_maps=None if label_maps is None else Path(label_maps),
        labels=Path(labels) if isinstance(labels, os.PathLike) else labels,
        channels=as_tuple(channels),
        overlap=overlap,
    )
