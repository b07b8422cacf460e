"""nnU-Net itself predicts as its imported models, reads exported folders, and trains our networks.

These tests need nnunetv2 (extra `nnunet`). Without it they are skipped.
"""

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch

import scanseg
from scanseg.interop import export_nnunet_model, export_nnunet_plans, import_nnunet
from scanseg.planning import PlanRequest
from scanseg.runtime import RunContext
from tests.factories import write_balls_and_boxes
from tests.interop.nnunet_folders import architecture, configuration, plans, random_network, write_folder
from tests.interop.test_nnunet_export import PLAIN, plan_of, write_model

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("nnunetv2") is None,
        reason="nnunetv2 is not installed (extra nnunet); networks and folders by hand are still tested",
    ),
    pytest.mark.filterwarnings("default"),
]
EQUAL = 0.9999
"""Fraction of equal voxels if nnU-Net sums windows in float32 too."""
AGREEING = 0.99
"""Fraction of equal voxels otherwise. With these small random networks, many voxels lie between two labels.

Networks of nnU-Net's sizes agree in 99.9 % (`docs/nnunet.md`).
"""
CASES = {
    "isotropic": ((20, 30, 26), (1.0, 1.0, 1.0)),
    "resampled": ((14, 26, 22), (2.3, 1.2, 0.8)),
    "anisotropic": ((9, 25, 27), (6.5, 1.1, 0.9)),
}


def write_images(folder: Path) -> Path:
    """Write volumes with planes of zeros at the border."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, (shape, spacing) in CASES.items():
        array = rng.normal(200, 60, shape).astype(np.float32)
        array[:, :2] = 0
        image = SimpleITK.GetImageFromArray(array)
        image.SetSpacing(spacing[::-1])
        SimpleITK.WriteImage(image, str(folder / f"{name}_0000.nii.gz"))
    return folder


class Float32:
    """The module torch without 16 bits, for nnU-Net's sums of windows."""

    half = torch.float32

    def __getattr__(self, name: str) -> object:
        return getattr(torch, name)


@pytest.fixture(params=[False, True], ids=["float16", "float32"])
def is_exact(request, monkeypatch):
    """Whether nnU-Net sums windows in float32 instead of float16."""
    if request.param:
        from nnunetv2.inference import predict_from_raw_data as module

        compute = module.compute_gaussian.__wrapped__
        wide = functools.lru_cache(2)(
            lambda *sizes, **options: compute(*sizes, **options, dtype=torch.float32)
        )
        monkeypatch.setattr(module, "torch", Float32())
        monkeypatch.setattr(module, "compute_gaussian", wide)
    return request.param


def predict_by_nnunet(model: Path, images: Path, output: Path, *, mirror: bool) -> None:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(use_mirroring=mirror, device=torch.device("cpu"), allow_tqdm=False)
    folds = tuple(int(path.name.removeprefix("fold_")) for path in model.glob("fold_*"))
    predictor.initialize_from_trained_model_folder(str(model), folds)
    output.mkdir()
    predictor.predict_from_files_sequential(str(images), str(output))


def compare(one: Path, other: Path) -> list[float]:
    """Return the fraction of equal voxels of each case."""
    found = []
    for name in CASES:
        maps = [SimpleITK.ReadImage(str(folder / f"{name}.nii.gz")) for folder in (one, other)]
        assert np.allclose(maps[0].GetSpacing(), maps[1].GetSpacing())
        arrays = [SimpleITK.GetArrayFromImage(each) for each in maps]
        assert len(np.unique(arrays[0])) > 1
        found.append(float((arrays[0] == arrays[1]).mean()))
    return found


@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("axes", [2, 3])
def test_predictions_agree(tmp_path, is_exact, axes, residual):
    arch = architecture(axes, residual=residual)
    config = configuration(axes, architecture=arch, use_mask_for_norm=[residual])
    name = "2d" if axes == 2 else "3d_fullres"
    networks = [random_network(arch, seed=seed) for seed in range(2)]
    described = plans({name: config}, transpose_forward=[0, 2, 1], transpose_backward=[0, 2, 1])
    mirror_axes = tuple(range(axes))
    folder = write_folder(tmp_path / "in", described, name, networks, mirror_axes=mirror_axes)
    images = write_images(tmp_path / "images")
    import_nnunet(folder, tmp_path / "model")
    scanseg.load(tmp_path / "model", device="cpu").predict_folder(images, tmp_path / "ours", mirror=True)
    predict_by_nnunet(folder, images, tmp_path / "theirs", mirror=True)
    assert min(compare(tmp_path / "ours", tmp_path / "theirs")) >= (EQUAL if is_exact else AGREEING)


def test_nnunet_predicts_an_exported_model(tmp_path, is_exact):
    plan = plan_of(PLAIN)
    write_model(tmp_path / "model", plan)
    export_nnunet_model(tmp_path / "model", tmp_path / "out")
    images = write_images(tmp_path / "images")
    scanseg.load(tmp_path / "model", device="cpu").predict_folder(images, tmp_path / "ours")
    predict_by_nnunet(tmp_path / "out", images, tmp_path / "theirs", mirror=False)
    assert min(compare(tmp_path / "ours", tmp_path / "theirs")) >= (EQUAL if is_exact else AGREEING)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["xlstm-unet", "xlstm-unet-2d", None])
def test_nnunet_trains_and_predicts_with_our_networks(tmp_path, recipe):
    raw = write_balls_and_boxes(tmp_path / "raw" / "Dataset007_Balls", num_cases=5)
    environment = os.environ | {
        "nnUNet_raw": str(tmp_path / "raw"),
        "nnUNet_preprocessed": str(tmp_path / "preprocessed"),
        "nnUNet_results": str(tmp_path / "results"),
        "nnUNet_n_proc_DA": "1",
    }

    def run(name: str, *words: str) -> None:
        command = shutil.which(name, path=str(Path(sys.executable).parent))
        assert command is not None
        subprocess.run([command, *words], env=environment, check=True, timeout=600)

    run("nnUNetv2_extract_fingerprint", "-d", "7", "-np", "1")
    shutil.copy(raw / "dataset.json", tmp_path / "preprocessed" / "Dataset007_Balls")
    output = tmp_path / "preprocessed" / "Dataset007_Balls" / "nnUNetPlans_scanseg.json"
    settings = (
        *("training.epochs=2", "training.iterations_per_epoch=2", "training.validation_batches=1"),
        "sampling.batch_size=2",
    )
    made = export_nnunet_plans(
        raw, output, request=PlanRequest(recipe, None, None, settings), context=RunContext(device="cpu")
    )
    configuration = "2d_msvm_unet" if recipe is None else made.configurations[0]
    environment["nnUNet_extTrainer"] = str(made.trainer_folder)
    run("nnUNetv2_preprocess", "-d", "7", "-plans_name", made.plans_name, "-c", made.prepared[0], "-np", "1")
    options = ("-p", made.plans_name, "-tr", made.trainer, "-device", "cpu")
    run("nnUNetv2_train", "7", configuration, "0", *options)
    (trained,) = (tmp_path / "results" / "Dataset007_Balls").iterdir()
    content = json.loads((trained / "plans.json").read_text())
    assert configuration in content["configurations"]
    import_nnunet(trained, tmp_path / "model")
    scanseg.load(tmp_path / "model", device="cpu").predict_folder(raw / "imagesTr", tmp_path / "ours")
    assert len(list((tmp_path / "ours").glob("*.nii.gz"))) == 5
