import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from scanseg.errors import InputError, ScansegError, UsageError
from scanseg.inference import load
from scanseg.inference.cuda_graph import DIRECT_PASSES
from scanseg.models import Checkpoint, ModelFolder
from scanseg.preprocessing.case import preprocess_image
from scanseg.specs import NoNormalization, RescaleNormalization, TrainingState
from tests.factories import image_of, write_labels


@pytest.fixture
def volume(rng):
    return rng.random((11, 13, 9)).astype(np.float32)


def test_an_array_without_channel_axis(make_predictor, volume):
    prediction = make_predictor().predict(volume)
    assert prediction.label_map.dtype == np.uint8
    assert prediction.probabilities is None
    np.testing.assert_array_equal(prediction.label_map, volume > 0.5)
    np.testing.assert_array_equal(prediction.image.array[0], volume)


def test_an_array_with_channels(make_predictor, volume):
    predictor = make_predictor(dataset={"channel_names": ("T1", "T2")})
    both = np.stack([volume, 1 - volume])
    np.testing.assert_array_equal(predictor.predict(both).label_map, volume > 0.5)


def test_files(make_predictor, tmp_path, rng):
    array = rng.integers(0, 2, (6, 7, 8)).astype(np.uint8)
    paths = [tmp_path / f"case_{number:04d}.nii.gz" for number in range(2)]
    for path, channel in zip(paths, (array, 1 - array), strict=True):
        write_labels(path, channel, spacing=(3.0, 2.0, 1.0))
    one = make_predictor().predict(paths[0])
    np.testing.assert_array_equal(one.label_map, array)
    np.testing.assert_array_equal(make_predictor().predict(str(paths[0])).label_map, array)
    assert one.image.spacing == pytest.approx((3.0, 2.0, 1.0))
    two = make_predictor(dataset={"channel_names": ("T1", "T2")}).predict(paths)
    np.testing.assert_array_equal(two.label_map, array)


def test_cropping_and_axis_order_are_undone(make_predictor):
    volume = np.zeros((10, 12, 14), np.float32)
    volume[2:7, 3:9, 4:5] = 1
    predictor = make_predictor(preprocessing={"crop_to_nonzero": True, "axis_order": (2, 0, 1)})
    prediction = predictor.predict(volume, probabilities=True)
    np.testing.assert_array_equal(prediction.label_map, volume)
    assert prediction.probabilities.shape == (2, 10, 12, 14)
    np.testing.assert_array_equal(prediction.probabilities[0][volume == 0], 1)


def test_results_are_resampled_to_the_source_grid(make_predictor):
    volume = np.zeros((10, 16, 16), np.float32)
    volume[:, :8] = 1
    predictor = make_predictor(preprocessing={"spacing": (1.0, 1.0, 1.0), "image_order": 1})
    prediction = predictor.predict(volume, spacing=(2.0, 0.5, 0.8))
    np.testing.assert_array_equal(prediction.label_map, volume)


def test_a_2d_network_on_a_volume(make_predictor, volume):
    np.testing.assert_array_equal(make_predictor(patch_size=(8, 8)).predict(volume).label_map, volume > 0.5)


def test_pictures(make_predictor, rng):
    picture = rng.random((3, 20, 17)).astype(np.float32)
    predictor = make_predictor(num_axes=2, patch_size=(8, 8), dataset={"channel_names": ("R", "G", "B")})
    prediction = predictor.predict(picture, probabilities=True)
    np.testing.assert_array_equal(prediction.label_map, picture[0] > 0.5)
    assert prediction.probabilities.shape == (2, 20, 17)


@pytest.mark.parametrize("resampling", ["logits", "labels"])
def test_slices_are_resized_and_back(make_predictor, resampling):
    predictor = make_predictor(
        patch_size=(16, 16),
        preprocessing={"slice_size": (16, 16), "image_order": 1},
        inference={"mode": "slices", "slice_resampling": resampling},
        order="every-slice",
    )
    volume = np.zeros((3, 40, 24), np.float32)
    volume[1, 10:30, 6:18] = 1
    label_map = predictor.predict(volume).label_map
    assert label_map.shape == volume.shape
    assert not label_map[[0, 2]].any()
    inner, outer = np.zeros((2, 40, 24), bool)
    inner[13:27, 8:16] = True
    outer[7:33, 4:20] = True
    assert label_map[1][inner].all()
    assert not label_map[1][~outer].any()


@pytest.mark.parametrize("regions", [False, True])
def test_labels_of_slices_are_resized_without_logits(make_predictor, monkeypatch, rng, regions):
    names = {"labels": {"background": 0, "whole": (1, 2), "core": (2,)}, "regions_class_order": (1, 2)}
    network = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1))
        network.bias.copy_(torch.tensor([-0.5, 0.5]))
    predictor = make_predictor(
        network,
        patch_size=(16, 16),
        preprocessing={"slice_size": (16, 16), "image_order": 1},
        inference={"mode": "slices", "slice_resampling": "labels"},
        order="every-slice",
        dataset=names if regions else None,
    )
    volume = rng.random((5, 40, 24)).astype(np.float32)
    expected = predictor.predict(volume, probabilities=True)
    assert expected.probabilities.shape == (2, *volume.shape)

    def refuse(*arguments, **options):
        raise AssertionError("logits are resized")

    monkeypatch.setattr("scanseg.inference.plan_predictor.resample_to_source", refuse)
    label_map = predictor.predict(volume).label_map
    assert len(np.unique(label_map)) > 1
    np.testing.assert_array_equal(label_map, expected.label_map)


def test_regions(make_predictor, volume):
    labels = {"background": 0, "whole": (1, 2), "core": (2,)}
    predictor = make_predictor(nn.Conv3d(1, 2, 1), dataset={"labels": labels, "regions_class_order": (1, 2)})
    with torch.no_grad():
        predictor.network.weight.fill_(1)
        predictor.network.bias.copy_(torch.tensor([-0.3, -0.7]))
    prediction = predictor.predict(volume, probabilities=True)
    # Values too close to a threshold for float32 are left out.
    clear = (np.abs(volume - 0.3) > 1e-5) & (np.abs(volume - 0.7) > 1e-5)
    expected = (volume > 0.3).astype(int) + (volume > 0.7)
    np.testing.assert_array_equal(prediction.label_map[clear], expected[clear])
    np.testing.assert_allclose(prediction.probabilities[1], 1 / (1 + np.exp(0.7 - volume)), atol=1e-3)


def test_preprocessed_cases_give_the_same(make_predictor, volume):
    predictor = make_predictor(preprocessing={"spacing": (1.0, 1.0, 1.0)})
    image = image_of(volume[None], spacing=(2.0, 1.5, 1.0))
    array, geometry = preprocess_image(image, predictor.plan.preprocessing)
    np.testing.assert_array_equal(
        predictor.predict_preprocessed(array, geometry), predictor.predict(image).label_map
    )


class LastColumn(nn.Module):
    """Network that finds the last column of each window."""

    def forward(self, batch):
        logits = torch.zeros(len(batch), 2, *batch.shape[2:])
        logits[:, 1] = -0.75
        logits[:, 1, ..., -1] = 1
        return logits


def test_mirroring_uses_the_axes_of_the_plan(make_predictor, volume):
    one_window = volume[:8, :8, :8]
    predictor = make_predictor(LastColumn(), inference={"mirror_axes": (2,)})
    assert predictor.predict(one_window).label_map[..., -1].all()
    mirrored = predictor.predict(one_window, mirror=True).label_map
    assert mirrored[..., 0].all()
    assert mirrored[..., -1].all()
    assert not mirrored[..., 1:-1].any()


def test_mirroring_is_on_by_default_if_the_plan_says_so(make_predictor, tmp_path, rng):
    predictor = make_predictor(LastColumn(), inference={"mirror_axes": (2,), "mirror": True})
    image = rng.random((8, 8, 8), dtype=np.float32)

    label_map = predictor.predict(image).label_map

    assert label_map[..., 0].all()
    assert not predictor.predict(image, mirror=False).label_map[..., 0].any()
    write_labels(tmp_path / "a.nii.gz", np.ones((8, 8, 8), np.uint8))
    by_default, off = (
        predictor.predict_folder(tmp_path / "a.nii.gz", tmp_path / str(mirror), mirror=mirror).mirror
        for mirror in (None, False)
    )
    assert (by_default, off) == (True, False)
    assert predictor.num_members(mirror=None) == 2


def test_mirroring_without_axes_is_refused(make_predictor, volume):
    with pytest.raises(UsageError, match=r"mirroring: expected axes in the plan's inference\.mirror_axes"):
        make_predictor().predict(volume, mirror=True)


def test_arrays_need_a_spacing_if_the_plan_resamples(make_predictor, volume):
    predictor = make_predictor(preprocessing={"spacing": (1.0, 1.0, 1.0)})
    with pytest.raises(UsageError, match=r"resamples to \(1.0, 1.0, 1.0\) mm.*Pass spacing="):
        predictor.predict(volume)
    with pytest.raises(UsageError, match="spacing: expected none for files and images"):
        predictor.predict(image_of(volume[None]), spacing=(1, 1, 1))


@pytest.mark.parametrize("spacing", [1.0, ("a", "b", "c"), (1.0, 1.0), (0.0, 1.0, 1.0)])
def test_an_invalid_spacing_is_refused(make_predictor, volume, spacing):
    with pytest.raises(InputError, match="spacing: expected 3 positive numbers in mm"):
        make_predictor().predict(volume, spacing=spacing)


def test_a_folder_is_refused(make_predictor, tmp_path):
    with pytest.raises(UsageError, match=r"expected a file or a DICOM series, got a folder.*predict_folder"):
        make_predictor().predict(tmp_path)


def test_faulty_arrays_are_refused(make_predictor, volume):
    predictor = make_predictor()
    with pytest.raises(
        InputError, match=r"1 channel \(MRI\).*shape \(2, 11, 13, 9\).*spacing: .*\(0.0, 1.0\)"
    ):
        predictor.predict(np.stack([volume, volume]), spacing=(0, 1))
    volume[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="NaN"):
        predictor.predict(volume)
    with pytest.raises(InputError, match=r"at least one voxel, got shape \(0, 13, 9\)"):
        make_predictor().predict(volume[:0])
    with pytest.raises(InputError, match="complex64"):
        predictor.predict(volume.astype(np.complex64))


def test_wrong_channels_name_the_file(make_predictor, tmp_path):
    array = np.ones((6, 7, 8), np.uint8)
    write_labels(tmp_path / "case.nii.gz", array)
    predictor = make_predictor(
        dataset={"channel_names": ("T1", "T2")}, preprocessing={"normalizations": (NoNormalization(),) * 2}
    )
    with pytest.raises(InputError, match=r"case\.nii\.gz: image: expected 2 channels, got 1"):
        predictor.predict(tmp_path / "case.nii.gz")


@pytest.mark.parametrize("allocate", [torch.empty, np.empty, None], ids=["torch", "numpy", "gpu"])
def test_out_of_memory_is_one_message(make_predictor, volume, allocate):
    class Greedy(nn.Module):
        def forward(self, batch):
            if allocate is None:
                raise torch.OutOfMemoryError("no")
            allocate(10**15)

    with pytest.raises(ScansegError, match=r"not enough memory on cpu.*\(11, 13, 9\).*window_batch, now 4"):
        make_predictor(Greedy()).predict(volume)


def test_an_image_too_large_to_preprocess_is_reported(make_predictor, tmp_path, monkeypatch):
    array = np.ones((6, 7, 8), np.uint8)
    write_labels(tmp_path / "case_0000.nii.gz", array)
    monkeypatch.setattr("scanseg.inference.inputs.preprocess_image", lambda *_: np.empty(10**15))
    with pytest.raises(ScansegError, match=r"case_0000\.nii\.gz.* preprocess 336 bytes \(Unable to allocate"):
        make_predictor().predict_folder(tmp_path / "case_0000.nii.gz", tmp_path / "out")


def test_the_network_is_set_to_evaluation(make_predictor, volume):
    predictor = make_predictor(nn.Sequential(nn.Conv3d(1, 2, 1), nn.Dropout(0.9)))
    first = predictor.predict(volume, probabilities=True).probabilities
    np.testing.assert_array_equal(predictor.predict(volume, probabilities=True).probabilities, first)


def test_load_a_model_folder(make_plan, tmp_path, volume):
    folder = ModelFolder.create(tmp_path / "model", make_plan())
    with pytest.raises(InputError, match="has not finished"):
        load(tmp_path / "model", device="cpu")
    network = folder.build_network()
    folder.write_weights(network.state_dict())
    predictor = load(tmp_path / "model", device="cpu")
    assert (predictor.model, predictor.precision, predictor.device.type) == (
        str(tmp_path / "model"),
        "float32",
        "cpu",
    )
    first = predictor.predict(volume).label_map
    np.testing.assert_array_equal(load(tmp_path / "model", device="cpu").predict(volume).label_map, first)


def test_an_unfinished_training_predicts_from_its_last_checkpoint(make_plan, tmp_path, volume):
    folder = ModelFolder.create(tmp_path / "model", make_plan())
    network = folder.build_network()
    ema = {name: value + 0.5 for name, value in network.state_dict().items()}
    state = TrainingState(iterations_done=4, training_seconds=1.0, optimizer_groups=())
    folder.write_checkpoint(Checkpoint(state, network.state_dict(), {}, ema=ema))
    predictor = load(tmp_path / "model", device="cpu")
    for name, value in predictor.network.state_dict().items():
        assert torch.equal(value, ema[name]), name
    (warning,) = (text for text in predictor.predict(volume).warnings if "checkpoint" in text)
    assert warning == f"{tmp_path / 'model'}: the training has not finished. Its last checkpoint predicts"
    write_labels(tmp_path / "case_0000.nii.gz", np.ones((6, 7, 8), np.uint8))
    record = predictor.predict_folder(tmp_path / "case_0000.nii.gz", tmp_path / "out")
    assert warning in record.warnings
    assert record.cases[0].warning is None or warning not in record.cases[0].warning
    with pytest.raises(InputError, match="has not finished"):
        load(tmp_path / "model", device="cpu", weights="last")


def test_stored_cases_need_no_image_library(make_plan, tmp_path):
    program = """
        import sys
        from pathlib import Path
        for name in ("SimpleITK", "PIL", "tifffile", "matplotlib"):
            sys.modules[name] = None
        import numpy, torch
        from scanseg.evaluation import score_case
        from scanseg.inference import Predictor
        from scanseg.specs import CaseGeometry, Plan
        shape = (6, 7, 8)
        geometry = CaseGeometry(
            num_axes=3, source_shape=shape, source_spacing=(1, 1, 1), axis_order=(0, 1, 2), crop_start=(0, 0, 0),
            crop_shape=shape, shape=shape,
        )
        predictor = Predictor(Plan.read(Path(sys.argv[1])), torch.nn.Conv3d(1, 2, 1), device=torch.device("cpu"))
        label_map = predictor.predict_preprocessed(numpy.zeros((1, *shape), numpy.float32), geometry)
        score_case(label_map, label_map, spacing=(1, 1, 1), labels={"bright": (1,)})
    """
    path = tmp_path / "plan.json"
    path.write_text(make_plan().to_json())
    subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(path)], check=True)


def test_small_images_are_padded_with_the_background_value(make_predictor):
    seen = []

    class Recording(nn.Module):
        def forward(self, batch):
            seen.append(batch)
            return batch.repeat(1, 2, 1, 1, 1)

    scaled = RescaleNormalization(lower=0, upper=10, low=-1, high=1)
    predictor = make_predictor(Recording(), preprocessing={"normalizations": (scaled,)})
    predictor.predict(np.full((6, 8, 8), 5.0, np.float32))
    (windows,) = seen
    assert windows[0, 0, :, 4, 4].tolist() == [-1, 0, 0, 0, 0, 0, 0, -1]


class Recorder(nn.Module):
    """Network that notes the number of windows of each pass."""

    def __init__(self):
        super().__init__()
        self.passes = []

    def forward(self, x):
        self.passes.append(len(x))
        return torch.stack([1 - x[:, 0], x[:, 0]], dim=1)


@pytest.mark.parametrize("patch_size", [(8, 8, 8), (5, 8, 8), (8, 8)])
@pytest.mark.parametrize("window_batch", [1, 3, 8])
def test_a_warm_up_runs_one_window_and_full_batches_until_graphs_are_captured(
    make_predictor, patch_size, window_batch
):
    network = Recorder()
    predictor = make_predictor(network, patch_size=patch_size, inference={"window_batch": window_batch})
    predictor.warm_up()
    expected = [1] * (DIRECT_PASSES + 1)
    assert network.passes == (
        expected if window_batch == 1 else expected + [window_batch] * (DIRECT_PASSES + 1)
    )


@pytest.mark.parametrize(("mirror_axes", "num_passes"), [((0,), 4), ((0, 1, 2), 8)])
def test_flips_are_passes_of_a_warm_up(make_predictor, mirror_axes, num_passes):
    network = Recorder()
    make_predictor(network, inference={"mirror_axes": mirror_axes, "mirror": True}).warm_up()
    assert network.passes.count(1) == num_passes
