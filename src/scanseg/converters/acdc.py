"""ACDC: cine MRI of the heart at end-diastole and end-systole."""

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from scanseg.converters.arrays import find_missing_slices, read_npz, stack_slices, volume_sample
from scanseg.converters.pairing import read_pair
from scanseg.converters.published import note_missing, published_split
from scanseg.converters.raw_layout import find_raw
from scanseg.converters.sources import Found, Sample, SourceCase, first_folder, note_unused, visible_files
from scanseg.messages import counted
from scanseg.specs import DatasetSpec

NUM_FRAMES = 2
_FRAME = re.compile(r"patient(?P<patient>\d{3})_frame\d{2}\.nii(\.gz)?")
_ANY_PATIENT = re.compile(r"patient(?P<patient>\d{3})_.+")
_SLICE = re.compile(r"case_(?P<patient>\d{3})_slice_?(?P<phase>ED|ES)_(?P<slice>\d+)\.npz")
_VOLUME = re.compile(r"case_(?P<patient>\d{3})_volume_?(?P<phase>ED|ES)\.npz")
_KEYS = ("img", "label")
_PATIENT_FOLDER = re.compile(r"patient\d{3}")


def find_official(source: Path) -> Found | None:
    """Find the 100 training patients in the official layout.

    Images are `patientNNN/patientNNN_frameMM.nii.gz`, label maps end in `_gt.nii.gz`.
    """
    roots = (".", "training", "database/training", "ACDC/training", "ACDC/database/training")
    needed = [f"patient{number:03d}" for number in range(1, 151)]
    root = first_folder(source, roots, needed)
    if root is None:
        return None
    cases, faults, patients, beyond = [], [], [], []
    split = published_split("acdc")
    for folder in sorted(path for path in root.iterdir() if _PATIENT_FOLDER.fullmatch(path.name)):
        patient = folder.name[-3:]
        if patient not in split:
            beyond.append(patient)
            continue
        patients.append(patient)
        frames = [path for path in visible_files(folder) if _FRAME.fullmatch(path.name)]
        if len(frames) != NUM_FRAMES:
            faults.append(
                f"{folder.name}: expected {NUM_FRAMES} files patient{patient}_frameMM.nii.gz, got {len(frames)}"
            )
        for image in frames:
            stem, ending = image.name.split(".", 1)
            label_map = image.with_name(f"{stem}_gt.{ending}")
            if label_map.is_file():
                cases.append(SourceCase(stem, split[patient], partial(read_pair, image, label_map)))
            else:
                faults.append(f"{folder.name}: no {label_map.name} beside {image.name}")
    others = note_unused(root, lambda path: path.is_file() or bool(_PATIENT_FOLDER.fullmatch(path.name)))
    return Found(tuple(cases), tuple(faults), (*_notes(patients, beyond), *others))


def find_mtunet(source: Path) -> Found | None:
    """Find the cases in MT-UNet's layout.

    Slices are `train/case_NNN_sliceED_S.npz` and `valid/case_NNN_sliceED_S.npz`, numbered from 0. Volumes are
    `test/case_NNN_volume_ED.npz`.
    """
    root = first_folder(source, (".", "ACDC", "data/ACDC"), ("train", "valid", "test"))
    if root is None:
        return None
    slices: dict[tuple[str, str], dict[int, Path]] = defaultdict(dict)
    volumes: dict[tuple[str, str], Path] = {}
    for path in (path for folder in ("train", "valid", "test") for path in visible_files(root / folder)):
        if match := _SLICE.fullmatch(path.name):
            slices[match["patient"], match["phase"]][int(match["slice"])] = path
        elif match := _VOLUME.fullmatch(path.name):
            volumes[match["patient"], match["phase"]] = path
    others = [
        note
        for folder in ("train", "valid", "test")
        for note in note_unused(
            root / folder, lambda path: bool(_SLICE.fullmatch(path.name) or _VOLUME.fullmatch(path.name))
        )
    ]
    if not slices and not volumes:
        return None
    split = published_split("acdc")
    faults = [
        f"case {patient} {phase}: slices {', '.join(map(str, missing))} are missing"
        for (patient, phase), numbers in sorted(slices.items())
        if (missing := find_missing_slices(numbers))
    ]
    readers = {
        key: partial(_read_slices, tuple(files[n] for n in sorted(files))) for key, files in slices.items()
    }
    readers |= {key: partial(_read_volume, path) for key, path in volumes.items()}
    twice = sorted(slices.keys() & volumes.keys())
    faults += [
        f"case {patient} {phase}: slices and a volume. Remove one of them." for patient, phase in twice
    ]
    faults += [
        f"case {patient} {phase}: no patient of the split"
        for patient, phase in readers
        if patient not in split
    ]
    cases = tuple(
        SourceCase(f"patient{patient}_{phase}", split[patient], read)
        for (patient, phase), read in sorted(readers.items())
        if patient in split
    )
    notes = ("these files have no spacing: it is set to 1, so distances are in voxels",)
    patients = [patient for patient, _ in readers]
    return Found(cases, tuple(faults), (*notes, *_notes(patients, []), *others))


def find_nnunet(source: Path, *, spec: DatasetSpec) -> Found | None:
    """Find cases `patientNNN_...` in nnU-Net's layout.

    The published split defines their parts.
    """
    found = find_raw(source, spec=spec)
    if found is None:
        return None
    split = published_split("acdc")
    cases, faults, patients, beyond = [], list(found.faults), [], []
    for case in found.cases:
        match = _ANY_PATIENT.fullmatch(case.name)
        if match is None:
            faults.append(f"case {case.name}: expected a name patientNNN_..., its part is unknown")
        elif match["patient"] not in split:
            beyond.append(match["patient"])
        else:
            patients.append(match["patient"])
            cases.append(SourceCase(case.name, split[match["patient"]], case.read))
    notes = (*found.notes, *_notes(patients, beyond))
    return Found(tuple(cases), tuple(faults), notes, about=found.about)


def _notes(patients: Iterable[str], beyond: Iterable[str]) -> tuple[str, ...]:
    """Return notes on missing patients and on patients left out."""
    notes = note_missing(published_split("acdc"), set(patients), "patients")
    left_out = sorted(set(beyond))
    if left_out:
        verb = "is" if len(left_out) == 1 else "are"
        patients_beyond = f"{counted(len(left_out), 'patient')} beyond the published split"
        notes += (f"{patients_beyond} {verb} left out: {', '.join(left_out)}",)
    return notes


def _read_slices(paths: tuple[Path, ...]) -> Sample:
    """Read the slices of one case."""
    return volume_sample(*stack_slices(paths, _KEYS), path=paths[0])


def _read_volume(path: Path) -> Sample:
    """Read a test volume."""
    return volume_sample(*read_npz(path, _KEYS), path=path)
