"""A shared model predicts as its original, and names no patients, paths or machines."""

import zipfile

import numpy as np
import pytest
import torch

import scanseg
from scanseg.errors import InputError, UsageError
from scanseg.models import ModelFolder, write_ensemble
from scanseg.pretrained import save_model
from scanseg.specs import EnsembleSpec, PostprocessingSpec
from tests.factories import make_plan

PRIVATE = ("ada", "secret", "smith", "jones", "doe", "Linux")


def predict(model, image):
    return scanseg.load(model, device="cpu").predict(image, probabilities=True).probabilities


@pytest.fixture
def image(generator):
    return (255 * torch.rand(24, 20, generator=generator)).numpy()


def test_the_copy_predicts_the_same_without_names(model, tmp_path, image, text_of_files):
    save_model(model, tmp_path / "shared")
    assert sorted(path.name for path in (tmp_path / "shared").iterdir()) == [
        "README.md",
        "model.safetensors",
        "plan.json",
    ]
    np.testing.assert_array_equal(predict(tmp_path / "shared", image), predict(model, image))
    text = text_of_files(tmp_path / "shared")
    assert not [word for word in PRIVATE if word in text]
    assert "secret" in text_of_files(model)


def test_weights_of_16_bits(model, tmp_path, image):
    save_model(model, tmp_path / "shared", weight_type="float16")
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (model, tmp_path / "shared")]
    assert sizes[1] < 0.7 * sizes[0]
    np.testing.assert_allclose(predict(tmp_path / "shared", image), predict(model, image), atol=0.02)
    assert all(
        p.dtype == torch.float32 for p in scanseg.load(tmp_path / "shared", device="cpu").network.parameters()
    )


def test_weights_beyond_16_bits_are_refused(model, tmp_path):
    folder = ModelFolder.open(model)
    weights = folder.build_network().state_dict()
    name = next(iter(weights))
    weights[name].view(-1)[0] = 1e6
    folder.write_weights(weights)
    with pytest.raises(InputError, match=rf"{name}: expected values below 65504 for float16, got 1e\+06"):
        save_model(model, tmp_path / "shared", weight_type="float16")
    assert not (tmp_path / "shared").exists()


def test_an_ensemble_keeps_its_members_and_postprocessing(model, tmp_path, image):
    ensemble = tmp_path / "both"
    for name in ("fold_0", "fold_1"):
        folder = ModelFolder.create(ensemble / name, make_plan())
        folder.write_weights(folder.build_network().state_dict())
    spec = EnsembleSpec(
        members=("fold_0", "fold_1"),
        average="logits",
        postprocessing=PostprocessingSpec(largest_foreground=True),
    )
    write_ensemble(ensemble, spec)
    save_model(ensemble, tmp_path / "shared")
    np.testing.assert_array_equal(predict(tmp_path / "shared", image), predict(ensemble, image))
    assert scanseg.load(tmp_path / "shared", device="cpu").postprocessing.largest_foreground


def test_equal_models_have_equal_archives(model, tmp_path):
    for name in ("a", "b"):
        save_model(model, tmp_path / name / "discs.zip")
    contents = [(tmp_path / name / "discs.zip").read_bytes() for name in ("a", "b")]
    assert contents[0] == contents[1]
    with zipfile.ZipFile(tmp_path / "a" / "discs.zip") as archive:
        assert archive.namelist() == ["README.md", "model.safetensors", "plan.json"]


def test_existing_outputs_and_unfinished_models_are_refused(model, tmp_path):
    with pytest.raises(UsageError, match=r"discs exists\. Choose another name"):
        save_model(model, model)
    with pytest.raises(UsageError, match="weight_type: expected one of float32, float16, got 'int8'"):
        save_model(model, tmp_path / "x", weight_type="int8")
    (model / "model.safetensors").unlink()
    with pytest.raises(
        InputError, match=r"model\.safetensors is missing, because its training has not finished"
    ):
        save_model(model, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()
