"""2D networks that see the neighbours of each slice."""

import numpy as np
import pytest
from pydantic import ValidationError

import scanseg
from scanseg.batches import load_into_memory, open_cases
from scanseg.errors import InputError
from scanseg.interop.nnunet_configuration import make_configuration
from scanseg.preprocessing import preprocess_image
from scanseg.runtime import RunContext
from scanseg.specs import NoNormalization, PreprocessingSpec, RescaleNormalization
from tests.factories import image_of, make_plan, plain_unet, write_nested_boxes, write_store

SETTINGS = (
    *(
        "preprocessing.neighbour_slices=1",
        "sampling.patch_size=[32, 32]",
        "preprocessing.slice_size=[32, 32]",
    ),
    *("network.dims=[4, 8, 12, 16]", "network.depths=[1, 1, 1, 1]", "network.decoder_depth=1"),
    *("training.epochs=1", "training.validation_batches=1", "sampling.batch_size=5"),
)


def preprocess(array, **fields):
    normalizations = (RescaleNormalization(lower=0, upper=100, low=-1.0), NoNormalization())
    spec = PreprocessingSpec(normalizations=normalizations, crop_to_nonzero=False, **fields)
    return spec, preprocess_image(image_of(array), spec)[0]


@pytest.mark.parametrize("reach", [1, 2])
def test_channels_are_those_of_each_slice_from_the_lowest_to_the_highest(rng, reach):
    array = rng.uniform(0, 100, (2, 4, 5, 6)).astype(np.float32)
    _, alone = preprocess(array)
    spec, stacked = preprocess(array, neighbour_slices=reach)

    assert stacked.shape == (2 * (2 * reach + 1), 4, 5, 6)
    assert spec.num_channels == len(stacked) == len(spec.background_value)
    for offset in range(-reach, reach + 1):
        seen = stacked[2 * (offset + reach) : 2 * (offset + reach + 1)]
        for z in range(4):
            empty = np.broadcast_to(np.array([-1.0, 0.0])[:, None, None], (2, 5, 6))
            expected = alone[:, z + offset] if 0 <= z + offset < 4 else empty
            np.testing.assert_array_equal(seen[:, z], expected)


def test_the_setting_is_left_out_of_older_documents():
    without = PreprocessingSpec(normalizations=(NoNormalization(),))
    assert "neighbour_slices" not in without.to_json()
    seen = without.model_copy(update={"neighbour_slices": 2})
    assert PreprocessingSpec.model_validate_json(seen.to_json()) == seen


def test_3d_networks_and_pictures_are_refused():
    with pytest.raises(ValidationError, match=r"neighbour_slices: expected a 2D network and volumes"):
        make_plan(plain_unet(3), patch_size=(8, 16, 16), preprocessing={"neighbour_slices": 1})
    with pytest.raises(ValidationError, match=r"neighbour_slices: expected a 2D network and volumes"):
        make_plan(plain_unet(2), patch_size=(16, 16), preprocessing={"neighbour_slices": 1})


def test_nnunet_has_no_such_network():
    plan = make_plan(
        plain_unet(2),
        patch_size=(16, 16),
        num_axes=3,
        preprocessing={"neighbour_slices": 1, "orientation": "RAS"},
    )
    assert plan.num_inputs == 3
    with pytest.raises(InputError, match="neighbour_slices: nnU-Net's 2D networks see one slice"):
        make_configuration(plan, data_identifier="cases")


def test_cases_in_memory_and_on_disk_are_equal(tmp_path):
    dataset = write_nested_boxes(tmp_path / "boxes", num_cases=2)
    store = write_store(dataset, tmp_path / "store", neighbour_slices=1)
    names = [case.case for case in store.index.cases]
    context = RunContext(device="cpu", num_workers=0)
    size = (1, 4, 4)
    positions = np.array([0, 1]), np.zeros((2, 3), dtype=np.int64), size
    images, labels = load_into_memory(store, names, seed=0, context=context).gather(*positions)
    assert images.shape == (2, 3, *size)

    on_disk = open_cases(store, names, seed=0, context=context)
    assert on_disk.locations[0].keys() == {"outer", "inner"}
    array = store.read_image(store.case(names[1]))[:, :1, :4, :4]
    np.testing.assert_array_equal(images[1].numpy(), array.astype(np.float32))
    np.testing.assert_array_equal(labels[1].numpy(), store.read_label_map(store.case(names[1]))[:1, :4, :4])


def train(folder, *, settings, **options):
    """Train a model on boxes, and return its folder and an image."""
    dataset = write_nested_boxes(folder / "boxes", num_cases=3)
    quiet = {"device": "cpu", "num_workers": 0, "progress": False}
    scanseg.train(dataset, folder / "model", settings=settings, **options, **quiet)
    return folder / "model", dataset / "imagesTr" / "case_0_0000.nii.gz"


@pytest.mark.parametrize("storage", ["device", "disk"])
def test_a_network_trains_and_predicts_with_the_neighbours(tmp_path, storage):
    settings = (*SETTINGS, f"training.case_storage={storage}")
    folder, image = train(tmp_path, recipe="msvm-unet-tuned", settings=settings)
    model = scanseg.load(folder, device="cpu")
    first = model.predict(image, probabilities=True)
    assert np.asarray(first.label_map).shape == (5, 12, 10)

    # Slice 3 is mirrored, so that the mean and deviation of the image stay.
    array = np.asarray(first.image.array).copy()
    array[:, 3] = array[:, 3, :, ::-1]
    second = model.predict(array, spacing=first.image.spacing, probabilities=True)
    differences = np.abs(first.probabilities - second.probabilities).max(axis=(0, 2, 3))
    assert (differences[:2] < 1e-6).all()
    assert (differences[2:] > 1e-5).all()


def test_onnx_predicts_as_torch(tmp_path):
    pytest.importorskip("onnxruntime", reason='pip install "scanseg[onnx]"')
    settings = ("preprocessing.neighbour_slices=1", "training.iterations_per_epoch=2")
    folder, image = train(tmp_path, recipe="plain-unet-2d", size="small", epochs=1, settings=settings)
    scanseg.export_onnx(folder, tmp_path / "onnx", progress=False)
    expected = scanseg.load(folder, device="cpu").predict(image)
    found = scanseg.load(tmp_path / "onnx").predict(image)
    assert (np.asarray(found.label_map) == np.asarray(expected.label_map)).mean() > 0.99
