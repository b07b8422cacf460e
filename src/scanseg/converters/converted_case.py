"""Reading, checks and writing of one case of a conversion."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanseg.converters.sources import Sample, SourceCase
from scanseg.converters.writing import write_sample
from scanseg.errors import InputError
from scanseg.files import find_disk_fault
from scanseg.imaging import compare_geometry
from scanseg.messages import counted, listed
from scanseg.specs import DatasetSpec


@dataclass(frozen=True)
class CaseOutcome:
    """Faults and notes of one case."""

    faults: tuple[str, ...]
    notes: tuple[str, ...]


def convert_case(case: SourceCase, *, folder: Path | None, spec: DatasetSpec, unlabelled: str) -> CaseOutcome:
    """Read, check and write one case.

    Args:
        case: The case.
        folder: Folder of the data set. `None`: write nothing.
        spec: Description of the data set.
        unlabelled: End of the name of the folder of unlabelled images.

    Raises:
        OSError: The disk is full.
    """
    try:
        sample = case.read()
        faults = _sample_faults(sample, spec)
        if not faults and folder is not None:
            write_sample(
                folder,
                case,
                sample,
                file_ending=spec.file_ending,
                unlabelled=unlabelled,
                colours=spec.colours,
            )
    except InputError as error:
        if (full := find_disk_fault(error)) is not None:
            raise full from error
        return CaseOutcome((f"case {case.name}: {error}",), ())
    return CaseOutcome(
        tuple(f"case {case.name}: {fault}" for fault in faults),
        tuple(f"case {case.name}: {note}" for note in (*sample.notes, *_warnings(sample))),
    )


def _warnings(sample: Sample) -> tuple[str, ...]:
    """Return the different warnings about the files of a case."""
    images = (sample.image, sample.label_map, sample.instances)
    return tuple(dict.fromkeys(warning for each in images if each is not None for warning in each.warnings))


def _sample_faults(sample: Sample, spec: DatasetSpec) -> list[str]:
    """Return the differences of a case from its data set's description."""
    faults = []
    if sample.image.num_channels != spec.num_channels:
        faults.append(
            f"expected {counted(spec.num_channels, 'channel')}, got {counted(sample.image.num_channels, 'channel')}"
        )
    if sample.image.array.dtype.kind == "f" and not np.isfinite(sample.image.array).all():
        faults.append("the image holds NaN or infinities")
    maps = {"label map": sample.label_map, "instance map": sample.instances}
    for name, other in maps.items():
        differences = [] if other is None else compare_geometry(sample.image, other)
        if differences:
            faults.append(f"image and {name} differ in {', '.join(differences)}")
    values = () if sample.label_map is None else np.unique(sample.label_map.array)
    unknown = set(map(int, values)) - spec.known_values
    if unknown:
        known = ", ".join(map(str, sorted(spec.known_values)))
        faults.append(
            f"unknown label values {listed(list(map(str, sorted(unknown))))}. The labels are {known}."
        )
    return faults
