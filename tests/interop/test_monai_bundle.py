"""A model as a bundle of MONAI, which MONAI runs."""

import json

import numpy as np
import pytest
import torch

import scanseg
from scanseg.errors import InputError, UsageError
from scanseg.imaging import read_label_map
from scanseg.interop import bundle_network
from scanseg.models import ModelFolder, network_of, write_ensemble
from scanseg.specs import EnsembleSpec, PostprocessingSpec
from tests.factories import SMALL_XLSTM_UNET_2D, write_disks

bundles = pytest.importorskip("monai.bundle", reason="MONAI is not installed")

# MONAI warns that configurations run code.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Four pictures of a bright disk."""
    return write_disks(tmp_path_factory.mktemp("bundle") / "disks", numbers=range(4))


@pytest.fixture(params=["single", "folds"])
def model(request, dataset, tmp_path):
    """A model with random weights, or two folds with postprocessing."""
    plan = scanseg.make_plan(dataset, settings=SMALL_XLSTM_UNET_2D, num_workers=0, progress=False)
    folders = (
        [tmp_path / "model"]
        if request.param == "single"
        else [tmp_path / "model" / f"fold_{n}" for n in (0, 1)]
    )
    for seed, folder in enumerate(folders):
        torch.manual_seed(seed)
        folder.parent.mkdir(exist_ok=True)
        ModelFolder.create(folder, plan).write_weights(network_of(plan).state_dict())
    if request.param == "folds":
        (tmp_path / "model" / "plan.json").write_text(plan.to_json())
        kept = PostprocessingSpec(largest_foreground=True)
        write_ensemble(tmp_path / "model", EnsembleSpec(members=("fold_0", "fold_1"), postprocessing=kept))
    return tmp_path / "model"


def test_monai_runs_the_bundle_with_the_same_label_maps(model, dataset, tmp_path, command):
    bundle, images = tmp_path / "bundle", dataset / "imagesTr"
    outcome = command("export", "monai", model, "-o", bundle)
    assert outcome.code == 0, outcome.stderr
    bundles.run(
        run_id="run",
        config_file=str(bundle / "configs" / "inference.json"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        bundle_root=str(bundle),
        dataset_dir=str(images),
        output_dir=str(tmp_path / "out"),
        device="cpu",
    )
    predictor = scanseg.load(model, device="cpu")
    predictor.predict_folder(images, tmp_path / "expected")
    sizes = set()
    for number in range(4):
        found, expected = (
            read_label_map(tmp_path / folder / f"case_{number}.png").array for folder in ("out", "expected")
        )
        np.testing.assert_array_equal(found, expected)
        sizes.add(int(expected.sum()))
    assert sizes != {0}
    record = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert record["model_digest"] == predictor.compute_digest()


def test_network_and_window_of_the_bundle_work_in_monai(model, tmp_path):
    bundle = scanseg.export_monai(model, tmp_path / "bundle")
    parser = bundles.ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.read_meta(str(bundle / "configs" / "metadata.json"))
    parser["bundle_root"], parser["device"] = str(bundle), "cpu"
    network, inferer = parser.get_parsed_content("network"), parser.get_parsed_content("inferer")
    described = parser["_meta_"]["network_data_format"]
    size = described["inputs"]["image"]["spatial_shape"]
    image = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = scanseg.load(model, device="cpu").network(image)
        torch.testing.assert_close(network(image), expected, rtol=0, atol=0)
        # One window: the blending divides by its own weights.
        torch.testing.assert_close(inferer(image, network), expected)
        large = inferer(image.repeat(1, 1, 2, 3), network)
    assert large.shape == (1, described["outputs"]["pred"]["num_channels"], 2 * size[0], 3 * size[1])
    assert large.isfinite().all()


def test_other_models_and_files_are_refused(model, tmp_path, monkeypatch):
    bundle = scanseg.export_monai(model, tmp_path / "bundle")
    with pytest.raises(UsageError, match="expected a new or empty folder"):
        scanseg.export_monai(model, bundle)
    (bundle / "models" / "model.pt").write_bytes(b"damaged")
    plan = str(bundle / "configs" / "plan.json")
    with pytest.raises(
        InputError, match=r"model\.pt: expected weights of PyTorch, got a missing or damaged file"
    ):
        bundle_network(plan, str(bundle / "models" / "model.pt"), num_networks=1)
    with pytest.raises(InputError, match="not a model folder"):
        scanseg.export_monai(bundle, tmp_path / "other")
    predictor = scanseg.load(model, device="cpu")
    predictor.first_stage = predictor
    monkeypatch.setattr("scanseg.interop.monai_bundle.load", lambda *arguments, **options: predictor)
    with pytest.raises(UsageError, match="expected a model with one plan, got a cascade"):
        scanseg.export_monai(model, tmp_path / "other")
    assert not (tmp_path / "other").exists()
