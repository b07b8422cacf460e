"""Record nnU-Net's plans of some data sets, for tests without nnU-Net.

python -m pip install --target SITE --no-deps nnunetv2==2.8.1 batchgenerators batchgeneratorsv2 \
    dynamic-network-architectures acvl-utils scikit-image lazy_loader imageio networkx einops timm
PYTHONPATH=SITE python tests/planning/record_nnunet_plans.py tests/planning/nnunet_plans [NAME ...]

Each file holds the fingerprint of a data set in nnU-Net's form and the plan of nnU-Net's default planner. Fingerprints
of real data sets come from nnU-Net's own extractor, run on `../shared/data`.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
REAL = ("acdc", "brats2015", "chaos-mr", "hippocampus")
ABOUT_PLANS = ("patch_size", "batch_size", "spacing", "median_image_size_in_voxels", "batch_dice")
ABOUT_NETWORKS = ("kernel_sizes", "strides", "features_per_stage")


def measures(shape, spacing, *, num_cases, channels, num_labels, spread=0.0, spacings=None):
    """Return a synthetic fingerprint of a data set with random variation of shapes."""
    rng = np.random.default_rng(0)
    scale = 1 + spread * rng.uniform(-1, 1, (num_cases, 3))
    shapes = np.maximum(1, np.round(np.array(shape) * (scale if shape[0] > 1 else scale * [0, 1, 1])))
    if spacings is None:
        spacings = np.tile(spacing, (num_cases, 1))
    else:
        spacings = np.array([spacings[number % len(spacings)] for number in range(num_cases)])
    labels = {"background": 0} | {f"label {value}": value for value in range(1, num_labels + 1)}
    return {
        "dataset": {
            "channel_names": {str(number): name for number, name in enumerate(channels)},
            "labels": labels,
            "numTraining": num_cases,
            "file_ending": ".nii.gz",
        },
        "spacings": spacings.astype(float).tolist(),
        "shapes_after_crop": shapes.astype(int).tolist(),
    }


SYNTHETIC = {
    "thick-slice-ct": lambda: measures(
        (92, 512, 512),
        None,
        num_cases=40,
        channels=("CT",),
        num_labels=3,
        spread=0.2,
        spacings=[(5.0, 0.78, 0.78), (5.0, 0.7, 0.7), (2.5, 0.85, 0.85), (7.5, 0.8, 0.8)],
    ),
    "thickest-slices-ct": lambda: measures(
        (41, 512, 512), (7.5, 0.74, 0.74), num_cases=21, channels=("CT",), num_labels=2, spread=0.3
    ),
    "large-ct": lambda: measures(
        (482, 512, 512), (1.0, 0.767, 0.767), num_cases=131, channels=("CT",), num_labels=2, spread=0.1
    ),
    "whole-body-ct": lambda: measures(
        (326, 400, 400), (3.0, 2.04, 2.04), num_cases=100, channels=("CT", "PET"), num_labels=1, spread=0.2
    ),
    "abdomen-ct": lambda: measures(
        (148, 512, 512), (3.0, 0.76, 0.76), num_cases=30, channels=("CT",), num_labels=13, spread=0.3
    ),
    "isotropic-mr": lambda: measures(
        (138, 170, 138),
        (1.0, 1.0, 1.0),
        num_cases=484,
        channels=("T1", "T1ce", "T2", "FLAIR"),
        num_labels=3,
        spread=0.05,
    ),
    "fine-mr": lambda: measures(
        (320, 320, 256), (0.7, 0.7, 0.7), num_cases=50, channels=("MRI",), num_labels=35, spread=0.02
    ),
    "prostate-mr": lambda: measures(
        (20, 320, 320), (3.6, 0.625, 0.625), num_cases=32, channels=("T2", "ADC"), num_labels=2, spread=0.2
    ),
    "sagittal-mr": lambda: measures(
        (512, 512, 35), (0.5, 0.5, 4.0), num_cases=24, channels=("MRI",), num_labels=4, spread=0.1
    ),
    "few-small-mr": lambda: measures(
        (41, 57, 33), (1.0, 1.0, 1.0), num_cases=6, channels=("MRI",), num_labels=2, spread=0.3
    ),
    "endoscopy-rgb": lambda: measures(
        (1, 1024, 1280), (999.0, 1.0, 1.0), num_cases=300, channels=("R", "G", "B"), num_labels=7
    ),
    "cells-rgb": lambda: measures(
        (1, 640, 640), (999.0, 1.0, 1.0), num_cases=200, channels=("R", "G", "B"), num_labels=2, spread=0.5
    ),
    "few-small-rgb": lambda: measures(
        (1, 261, 333), (999.0, 1.0, 1.0), num_cases=40, channels=("R", "G", "B"), num_labels=1, spread=0.2
    ),
}


def extract(name, raw):
    """Return nnU-Net's fingerprint of a data set of `../shared/data`."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
        DatasetFingerprintExtractor,
    )

    shutil.copytree(SHARED / name, raw / "Dataset001_x")
    (raw / "Dataset001_x" / "splits_final.json").unlink(missing_ok=True)
    found = DatasetFingerprintExtractor(1, num_processes=1).run(overwrite_existing=True)
    dataset = json.loads((SHARED / name / "dataset.json").read_text())
    return {
        "dataset": {key: dataset[key] for key in ("channel_names", "labels", "numTraining", "file_ending")},
        "spacings": [list(map(float, spacing)) for spacing in found["spacings"]],
        "shapes_after_crop": [list(map(int, shape)) for shape in found["shapes_after_crop"]],
        "foreground_intensity_properties_per_channel": found["foreground_intensity_properties_per_channel"],
        "median_relative_size_after_cropping": found["median_relative_size_after_cropping"],
    }


def lay_out(measured, raw, preprocessed):
    """Write a synthetic fingerprint into nnU-Net's folders."""
    folder = raw / "Dataset001_x"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for number in range(measured["dataset"]["numTraining"]):
        for channel in range(len(measured["dataset"]["channel_names"])):
            (folder / "imagesTr" / f"c{number:04d}_{channel:04d}.nii.gz").touch()
        (folder / "labelsTr" / f"c{number:04d}.nii.gz").touch()
    described = measured["dataset"] | {"overwrite_image_reader_writer": "SimpleITKIO"}
    (folder / "dataset.json").write_text(json.dumps(described))
    (preprocessed / "Dataset001_x").mkdir(parents=True)
    statistics = dict.fromkeys(
        ("mean", "median", "std", "min", "max", "percentile_99_5", "percentile_00_5"), 0.0
    )
    fingerprint = {
        "foreground_intensity_properties_per_channel": dict.fromkeys(
            measured["dataset"]["channel_names"], statistics
        ),
        "median_relative_size_after_cropping": 1.0,
        "spacings": measured["spacings"],
        "shapes_after_crop": measured["shapes_after_crop"],
    }
    (preprocessed / "Dataset001_x" / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))


def plan(measured):
    """Return the fingerprint with the plan of nnU-Net's planner."""
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

    made = ExperimentPlanner(1).plan_experiment()
    configurations = {
        name: {key: found[key] for key in ABOUT_PLANS}
        | {key: found["architecture"]["arch_kwargs"][key] for key in ABOUT_NETWORKS}
        for name, found in made["configurations"].items()
        if "inherits_from" not in found
    }
    normalizations = [
        [scheme, bool(masked)]
        for scheme, masked in zip(
            made["configurations"]["2d"]["normalization_schemes"],
            made["configurations"]["2d"]["use_mask_for_norm"],
            strict=True,
        )
    ]
    return measured | {
        "nnunet": {
            "transpose_forward": made["transpose_forward"],
            "normalizations": normalizations,
            "configurations": configurations,
        }
    }


def record(name):
    """Return the fingerprint of a data set with nnU-Net's plan, by means of temporary folders."""
    from nnunetv2 import paths
    from nnunetv2.utilities.json_export import recursive_fix_for_json_export

    for folder in (paths.nnUNet_raw, paths.nnUNet_preprocessed):
        shutil.rmtree(folder, ignore_errors=True)
        Path(folder).mkdir(parents=True)
    raw, preprocessed = Path(paths.nnUNet_raw), Path(paths.nnUNet_preprocessed)
    if name in REAL:
        measured = extract(name, raw)
    else:
        measured = SYNTHETIC[name]()
        lay_out(measured, raw, preprocessed)
    made = plan(measured)
    recursive_fix_for_json_export(made)
    return json.loads(json.dumps(made))


def prepare_nnunet():
    """Create nnU-Net's folders before its import, and return their parent."""
    base = Path(tempfile.mkdtemp())
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(base / name)
    return base


def main():
    """Write the files of the given names, or all."""
    target, names = Path(sys.argv[1]), sys.argv[2:] or [*SYNTHETIC, *REAL]
    base = prepare_nnunet()
    try:
        for name in names:
            (target / f"{name}.json").write_text(json.dumps(record(name)) + "\n")
            sys.stdout.write(f"{name}\n")
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
