"""Temperatures: fitted to known ones, stored with the weights, applied to probabilities but not to labels."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import special

import scanseg
from scanseg.errors import InputError, UsageError
from scanseg.inference import to_probabilities
from scanseg.inference.uncertainty import entropy, logits_and_disagreement
from scanseg.models import calibration_path, write_ensemble
from scanseg.reports.calibrating import Samples, fit_temperatures, make_record
from scanseg.specs import CalibrationRecord, DatasetSpec, EnsembleSpec
from tests.factories import SMALL_XLSTM_UNET_2D, write_disks

LABELS = DatasetSpec(
    name="d", channel_names=("a",), labels={"background": 0, "a": 1, "b": 2}, file_ending=".png"
)
REGIONS = DatasetSpec(
    name="d",
    channel_names=("a",),
    labels={"background": 0, "whole": (1, 2), "core": (2,)},
    regions_class_order=(1, 2),
    file_ending=".png",
)


def draw_labels(temperatures: tuple[float, ...], *, count: int = 60_000, seed: int = 0) -> Samples:
    """Draw references from tempered probabilities, so these temperatures are the right ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (3, count)).astype(np.float32)
    scale = np.array(temperatures)[logits.argmax(axis=0)]
    cumulative = special.softmax(logits / scale, axis=0).cumsum(axis=0)
    reference = (rng.random(count) > cumulative).sum(axis=0).clip(0, 2)
    return Samples(logits, reference.astype(np.uint8))


def test_the_temperature_of_each_label_is_found():
    assert fit_temperatures(draw_labels((1.0, 2.0, 0.5)), LABELS) == pytest.approx((1.0, 2.0, 0.5), rel=0.05)


def test_rare_labels_have_the_temperature_of_all_voxels():
    samples = draw_labels((2.0, 2.0, 2.0))
    samples.logits[2] -= 100  # label 2 is never predicted
    first, second, third = fit_temperatures(Samples(samples.logits, np.minimum(samples.reference, 1)), LABELS)
    assert min(first, second) <= third <= max(first, second)


def test_the_temperature_of_each_region_is_found():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (2, 60_000))
    core = rng.random(60_000) < special.expit(logits[1] / 3.0)
    # The whole region holds the core, so its own temperature is fitted outside of the core.
    whole = rng.random(60_000) < special.expit(logits[0] / 1.5)
    outside = Samples(logits[:, ~core], np.where(whole, 1, 0).astype(np.uint8)[~core])
    assert fit_temperatures(outside, REGIONS)[0] == pytest.approx(1.5, rel=0.05)
    inside = Samples(logits, np.where(core, 2, 0).astype(np.uint8))
    assert fit_temperatures(inside, REGIONS)[1] == pytest.approx(3.0, rel=0.05)


def test_calibration_lowers_error_and_loss_on_other_cases():
    samples = [draw_labels((2.5, 2.5, 2.5), count=5000, seed=seed) for seed in range(4)]
    record = make_record(samples, LABELS)
    assert record.error_before > 0.1
    assert record.error_after < 0.03
    assert record.loss_after < record.loss_before
    assert (record.num_cases, record.num_voxels) == (4, 20_000)
    assert record.outputs == ("background", "a", "b")
    assert sum(record.before.counts) == sum(record.after.counts) == 20_000


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("regions", [False, True])
def test_tempered_probabilities_have_a_formula_and_keep_decisions(kind, regions):
    rng = np.random.default_rng(0)
    logits, temperatures = rng.normal(0, 3, (3, 4, 5)).astype(np.float32), (0.5, 2.0, 3.0)
    given = torch.from_numpy(logits) if kind == "torch" else logits
    found = np.asarray(to_probabilities(given, regions=regions, temperatures=temperatures))
    if regions:
        expected = special.expit(logits / np.reshape(temperatures, (3, 1, 1)))
        np.testing.assert_array_equal(found > 0.5, logits > 0)
    else:
        expected = special.softmax(logits / np.array(temperatures)[logits.argmax(axis=0)], axis=0)
        np.testing.assert_array_equal(found.argmax(axis=0), logits.argmax(axis=0))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    plain = to_probabilities(given, regions=regions)
    ones = to_probabilities(given, regions=regions, temperatures=(1.0, 1.0, 1.0))
    np.testing.assert_array_equal(np.asarray(plain), np.asarray(ones))


def test_the_disagreement_is_that_of_tempered_probabilities():
    rng = np.random.default_rng(0)
    members = [torch.from_numpy(rng.normal(0, 3, (1, 2, 4, 4)).astype(np.float32)) for _ in range(2)]
    networks = [lambda windows, logits=logits: logits for logits in members]
    windows, temperatures = torch.zeros(1, 1, 4, 4), (2.0, 4.0)
    found = logits_and_disagreement(networks, windows, flips=(), regions=False, temperatures=temperatures)
    parts = [to_probabilities(each[0], regions=False, temperatures=temperatures) for each in members]
    expected = entropy(sum(parts) / 2, regions=False) - sum(entropy(p, regions=False) for p in parts) / 2
    torch.testing.assert_close(found[0, 2], expected)
    torch.testing.assert_close(found[:, :2], sum(members) / 2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Return a folder with a data set and a model of two epochs."""
    folder = tmp_path_factory.mktemp("calibrated")
    dataset = write_disks(folder / "disks", numbers=range(5))
    settings = (
        *SMALL_XLSTM_UNET_2D,
        *("training.epochs=2", "training.iterations_per_epoch=4", "training.validation_batches=1"),
    )
    options = {
        "recipe": "xlstm-unet-2d",
        "size": "small",
        "device": "cpu",
        "num_workers": 0,
        "progress": False,
    }
    scanseg.train(dataset, folder / "model", settings=settings, **options)
    return folder


@pytest.fixture
def model(trained, tmp_path) -> Path:
    """Return a copy of the model beside its store."""
    shutil.copytree(trained / "model", tmp_path / "model")
    (tmp_path / "scanseg-stores").symlink_to(trained / "scanseg-stores")
    return tmp_path / "model"


def predict(model: Path, image: Path):
    predictor = scanseg.load(model, device="cpu")
    return predictor, predictor.predict(image, probabilities=True, uncertainty=True)


def image_of_case(trained: Path) -> Path:
    return next((trained / "disks" / "imagesTr").glob("*.png"))


def test_a_model_is_calibrated_and_keeps_its_label_maps(trained, model, command, tmp_path):
    before, plain = predict(model, image_of_case(trained))
    outcome = command("calibrate", model, "--device", "cpu")
    assert outcome.code == 0, outcome.stderr
    record = CalibrationRecord.read(calibration_path(model))
    assert f"{record.error_before:.4f} before, {record.error_after:.4f} after" in outcome.stdout
    assert record.temperatures != (1.0, 1.0)

    after, tempered = predict(model, image_of_case(trained))
    assert after.temperatures == record.temperatures
    np.testing.assert_array_equal(tempered.label_map, plain.label_map)
    assert np.abs(tempered.probabilities.astype(float) - plain.probabilities.astype(float)).max() > 0.001
    assert not np.array_equal(tempered.entropy, plain.entropy)
    assert after.compute_digest() != before.compute_digest()
    assert scanseg.load(model, device="cpu", weights="last").temperatures is None

    scanseg.report(model, tmp_path / "report.html", device="cpu", progress=False)
    text = (tmp_path / "report.html").read_text()
    assert "Expected calibration error, after calibration" in text

    again = command("calibrate", model, "--device", "cpu")
    assert (again.code, "already exists" in again.stderr) == (2, True)
    assert command("calibrate", model, "--device", "cpu", "--overwrite").code == 0
    assert CalibrationRecord.read(calibration_path(model)) == record


def test_a_shared_model_keeps_its_calibration(model, tmp_path):
    record = scanseg.calibrate(model, device="cpu", progress=False)
    shared = scanseg.save_pretrained(model, tmp_path / "shared", weight_type="float16")
    predictor = scanseg.load(shared, device="cpu")
    assert predictor.temperatures == record.temperatures
    assert predictor.warnings == scanseg.load(model, device="cpu").warnings


def test_a_calibration_of_other_weights_is_not_applied(model):
    scanseg.calibrate(model, device="cpu", progress=False)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    predictor = scanseg.load(model, device="cpu")
    assert predictor.temperatures is None
    assert any("belongs to other weights" in warning for warning in predictor.warnings)


def test_a_calibration_of_other_outputs_is_refused(model):
    record = scanseg.calibrate(model, device="cpu", progress=False)
    calibration_path(model).write_text(record.model_copy(update={"temperatures": (1.0,)}).to_json())
    with pytest.raises(InputError, match="expected 2 temperatures"):
        scanseg.load(model, device="cpu")


def test_models_without_validation_cases_are_refused(model):
    (model / "validation.json").unlink()
    with pytest.raises(InputError, match="Finish the training"):
        scanseg.calibrate(model, device="cpu", progress=False)


def test_temperatures_do_not_fit_the_mean_of_several_plans(model):
    from scanseg.inference import Predictor

    predictor = scanseg.load(model, device="cpu")
    with pytest.raises(UsageError, match="mean of several plans"):
        Predictor(predictor.plan, predictor.networks, members=[predictor], temperatures=(1.0, 2.0))


@pytest.fixture
def ensemble(model) -> Path:
    """Return a folder of two equal models with the validation scores of both."""
    folder = model.parent / "folds"
    for name in ("fold_0", "fold_1"):
        shutil.copytree(model, folder / name)
    shutil.copy(model / "validation.json", folder)
    write_ensemble(folder, EnsembleSpec(members=("fold_0", "fold_1")))
    return folder


def test_folds_share_the_temperatures_of_all_validation_cases(model, ensemble):
    record = scanseg.calibrate(ensemble, device="cpu", progress=False)
    single = scanseg.calibrate(model, device="cpu", progress=False)
    assert record.num_cases == 2 * single.num_cases
    assert set(record.weights) == {"fold_0/model.safetensors", "fold_1/model.safetensors"}
    assert scanseg.load(ensemble, device="cpu").temperatures == record.temperatures
    np.testing.assert_allclose(record.temperatures, single.temperatures, rtol=1e-3)


def test_the_mean_of_several_recipes_is_not_calibrated(model, ensemble):
    scanseg.calibrate(ensemble / "fold_0", device="cpu", progress=False)
    write_ensemble(ensemble, EnsembleSpec(members=("fold_0", "fold_1"), average="probabilities"))
    with pytest.raises(UsageError, match="mean of several"):
        scanseg.calibrate(ensemble, device="cpu", progress=False)
    predictor = scanseg.load(ensemble, device="cpu")
    assert [each.temperatures for each in (predictor, *predictor.members)] == [None, None]


def test_exported_models_have_the_same_probabilities(trained, model, tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    record = scanseg.calibrate(model, device="cpu", progress=False)
    document = scanseg.export_onnx(model, tmp_path / "exported", progress=False)
    assert document.temperatures == record.temperatures
    _, by_torch = predict(model, image_of_case(trained))
    predictor = scanseg.load(tmp_path / "exported")
    by_onnx = predictor.predict(image_of_case(trained), probabilities=True)
    # Probabilities are stored in float16, whose steps below 1 are 0.0005.
    np.testing.assert_allclose(
        by_onnx.probabilities.astype(float), by_torch.probabilities.astype(float), atol=0.002
    )
