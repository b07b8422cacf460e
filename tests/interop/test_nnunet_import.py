"""Trainings of nnU-Net become models with the same logits, or are refused with every reason."""

import copy
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch

import scanseg
from scanseg.errors import InputError, UsageError
from scanseg.interop import import_nnunet
from scanseg.models import import_weights, load_model
from scanseg.specs import (
    CTNormalization,
    NNUNetImportRecord,
    NoNormalization,
    RescaleNormalization,
    ZScoreNormalization,
)
from tests.interop.nnunet_folders import (
    DATASET,
    architecture,
    configuration,
    plans,
    random_network,
    write_folder,
)

CPU = torch.device("cpu")


def named(axes):
    return "2d" if axes == 2 else "3d_fullres"


def write_training(folder, axes=3, *, residual=False, folds=1, **options):
    """Write a training with random weights, and return its folder and networks."""
    config = configuration(axes, residual=residual)
    networks = [random_network(config["architecture"], seed=fold) for fold in range(folds)]
    described = plans({named(axes): config})
    return write_folder(folder, described, named(axes), networks, **options), networks


@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("axes", [2, 3])
def test_logits_are_those_of_nnunet(tmp_path, axes, residual):
    folder, (network,) = write_training(tmp_path / "in", axes, residual=residual, prefix="_orig_mod.")
    record = import_nnunet(folder, tmp_path / "model")
    loaded = load_model(tmp_path / "model", device=CPU)
    images = torch.randn(2, 1, *loaded.plan.sampling.patch_size)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.network(images), network(images), rtol=1e-4, atol=1e-4)
    assert record == NNUNetImportRecord.read(tmp_path / "model" / "import.json")
    assert (record.configuration, record.trainer, record.notes) == (named(axes), "nnUNetTrainer", ())
    assert [(each.fold, each.file) for each in record.checkpoints] == [("0", "fold_0/checkpoint_final.pth")]
    assert loaded.plan.inference.mirror_axes == (0, 1)


def test_folds_become_an_ensemble(tmp_path):
    folder, networks = write_training(tmp_path / "in", folds=3)
    import_nnunet(folder, tmp_path / "all")
    import_nnunet(folder, tmp_path / "two", folds=("2", "0"))
    images = torch.randn(1, 1, 8, 16, 16)
    with torch.inference_mode():
        logits = [network(images) for network in networks]
        mean = load_model(tmp_path / "all", device=CPU).network(images)
        torch.testing.assert_close(mean, sum(logits) / 3, rtol=1e-4, atol=1e-4)
        mean = load_model(tmp_path / "two", device=CPU).network(images)
        torch.testing.assert_close(mean, (logits[0] + logits[2]) / 2, rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match=r"folds: expected some of 0, 1, 2, got 7"):
        import_nnunet(folder, tmp_path / "no", folds=("7",))


def test_a_network_without_biases(tmp_path):
    config = configuration(2, architecture=architecture(2, conv_bias=False))
    network = random_network(config["architecture"])
    folder = write_folder(tmp_path / "in", plans({"2d": config}), "2d", [network])
    import_nnunet(folder, tmp_path / "model")
    images = torch.randn(1, 1, 16, 16)
    with torch.inference_mode():
        found = load_model(tmp_path / "model", device=CPU).network(images)
        torch.testing.assert_close(found, network(images), rtol=1e-4, atol=1e-4)


def test_the_label_map_is_the_one_of_a_single_window(tmp_path):
    folder, (network,) = write_training(tmp_path / "in", mirror_axes=(0, 1, 2))
    import_nnunet(folder, tmp_path / "model")
    array = np.random.default_rng(0).normal(100, 20, (8, 16, 16)).astype(np.float32)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((1.0, 1.0, 2.0))
    SimpleITK.WriteImage(image, str(tmp_path / "case_0000.nii.gz"))
    x = torch.from_numpy((array - array.mean()) / array.std())[None, None]
    flips = [(), (2,), (3,), (4,), (2, 3), (2, 4), (3, 4), (2, 3, 4)]
    predictor = scanseg.load(tmp_path / "model", device="cpu")
    with torch.inference_mode():
        mirrored = sum(network(x.flip(axes)).flip(axes) for axes in flips)
        plain = network(x)
    for logits, mirror in ((plain, False), (mirrored, True)):
        found = predictor.predict(tmp_path / "case_0000.nii.gz", mirror=mirror).label_map
        assert (found == logits[0].argmax(0).numpy()).mean() > 0.999


def test_plans_in_the_old_form(tmp_path):
    folder, networks = write_training(tmp_path / "new", residual=True)
    import_nnunet(folder, tmp_path / "from-new")
    config = configuration(3, residual=True)
    arguments = config.pop("architecture")["arch_kwargs"]
    old = config | {
        "UNet_class_name": "ResidualEncoderUNet",
        "UNet_base_num_features": 4,
        "n_conv_per_stage_encoder": arguments["n_blocks_per_stage"],
        "n_conv_per_stage_decoder": arguments["n_conv_per_stage_decoder"],
        "num_pool_per_axis": [1, 2, 2],
        "pool_op_kernel_sizes": arguments["strides"],
        "conv_kernel_sizes": arguments["kernel_sizes"],
        "unet_max_num_features": 8,
    }
    described = plans({"3d_base": old, "3d_fullres": {"inherits_from": "3d_base", "batch_size": 2}})
    properties = described.pop("foreground_intensity_properties_per_channel")
    described["foreground_intensity_properties_by_modality"] = properties
    write_folder(tmp_path / "old", described, "3d_fullres", networks)
    import_nnunet(tmp_path / "old", tmp_path / "from-old")
    plan = scanseg.load(tmp_path / "from-old", device="cpu").plan
    assert plan == scanseg.load(tmp_path / "from-new", device="cpu").plan
    del described["configurations"]["3d_base"]["UNet_base_num_features"]
    write_folder(tmp_path / "lacking", described, "3d_fullres", networks)
    with pytest.raises(InputError, match=r"plans.json: configuration 3d_fullres.*UNet_base_num_features"):
        import_nnunet(tmp_path / "lacking", tmp_path / "no")


def test_preprocessing_regions_and_orientation(tmp_path):
    dataset = {
        "channel_names": {"0": "CT", "1": "T1"},
        "labels": {"background": 0, "whole": [1, 2], "inner": 2, "ignore": 3},
        "regions_class_order": [1, 2],
        "file_ending": ".nii.gz",
    }
    torch_resampling = {
        f"resampling_fn_{part}": "resample_torch_fornnunet" for part in ("data", "seg", "probabilities")
    } | {
        f"resampling_fn_{part}_kwargs": {"is_seg": part == "seg", "force_separate_z": False}
        for part in ("data", "seg", "probabilities")
    }
    config = configuration(
        3,
        normalization_schemes=["CTNormalization", "ZScoreNormalization"],
        use_mask_for_norm=[False, True],
        **torch_resampling,
    )
    network = random_network(config["architecture"], inputs=2, num_classes=2)
    described = plans(
        {"3d_fullres": config},
        transpose_forward=[1, 0, 2],
        image_reader_writer="NibabelIOWithReorient",
    )
    folder = write_folder(
        tmp_path / "in", described, "3d_fullres", [network], dataset=dataset, mirror_axes=None
    )
    import_nnunet(folder, tmp_path / "model")
    plan = scanseg.load(tmp_path / "model", device="cpu").plan
    assert plan.dataset.has_regions
    assert plan.dataset.num_outputs == 2
    assert plan.dataset.ignore_label == 3
    preprocessing = plan.preprocessing
    assert preprocessing.normalizations == (
        CTNormalization(lower=40, upper=930, mean=400, standard_deviation=170),
        ZScoreNormalization(nonzero_only=True),
    )
    assert (preprocessing.orientation, preprocessing.axis_order) == ("RAS", (1, 0, 2))
    assert (preprocessing.image_order, preprocessing.spacing) == (1, (2.0, 1.0, 1.0))
    assert preprocessing.anisotropy_threshold > 1e9
    assert plan.inference.mirror_axes == ()


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("NoNormalization", NoNormalization()),
        ("RescaleTo01Normalization", RescaleNormalization()),
        ("RGBTo01Normalization", RescaleNormalization(lower=0, upper=255)),
    ],
)
def test_pictures(tmp_path, scheme, expected):
    config = configuration(2, normalization_schemes=[scheme])
    described = plans(
        {"2d": config},
        image_reader_writer="NaturalImage2DIO",
        original_median_shape_after_transp=[1, 16, 16],
    )
    dataset = DATASET | {"file_ending": ".png"}
    network = random_network(config["architecture"])
    folder = write_folder(tmp_path / "in", described, "2d", [network], dataset=dataset)
    import_nnunet(folder, tmp_path / "model")
    plan = scanseg.load(tmp_path / "model", device="cpu").plan
    assert (plan.num_axes, plan.preprocessing.spacing) == (2, None)
    assert plan.preprocessing.normalizations == (expected,)


FAULTS = {
    "network": ({"architecture": {**architecture(3), "network_class_name": "mine.Net"}}, "network mine.Net"),
    "norm": (
        {"architecture": architecture(3, norm_op="torch.nn.BatchNorm3d")},
        "norm_op: expected InstanceNorm3d, got torch.nn.BatchNorm3d",
    ),
    "slope": (
        {"architecture": architecture(3, nonlin_kwargs={"negative_slope": 0.2})},
        "expected negative_slope 0.01, got 0.2",
    ),
    "option": ({"architecture": architecture(3, attention=True)}, "the option attention is unknown"),
    "block": ({"architecture": architecture(3, block="x.BottleneckD")}, "block: expected .*BasicBlockD"),
    "resampling": ({"resampling_fn_data": "mine"}, "resampling_fn_data: expected one of .*, got mine"),
    "order": (
        {"resampling_fn_probabilities_kwargs": {"order": 3, "order_z": 0, "force_separate_z": None}},
        "resampling_fn_probabilities: expected order 1, got 3",
    ),
    "separate": (
        {"resampling_fn_data_kwargs": {"order": 3, "order_z": 1, "force_separate_z": True}},
        "order_z: expected 0, got 1",
    ),
    "normalization": ({"normalization_schemes": ["Mine"]}, "channel 0: Mine is unknown"),
    "preprocessor": (
        {"preprocessor_name": "Mine"},
        "preprocessor_name: expected DefaultPreprocessor, got Mine",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_settings_that_a_plan_lacks_are_named(tmp_path, name):
    changes, message = FAULTS[name]
    network = random_network(architecture(3))
    described = plans({"3d_fullres": configuration(3, **copy.deepcopy(changes))})
    folder = write_folder(tmp_path / "in", described, "3d_fullres", [network])
    with pytest.raises(InputError, match=message):
        import_nnunet(folder, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_all_faults_are_in_one_message(tmp_path):
    network = random_network(architecture(3))
    config = configuration(3, preprocessor_name="Mine", normalization_schemes=["Other"])
    described = plans({"3d_fullres": config}, image_reader_writer="Theirs", label_manager="Ours")
    folder = write_folder(tmp_path / "in", described, "3d_fullres", [network])
    with pytest.raises(InputError) as raised:
        import_nnunet(folder, tmp_path / "model")
    for part in ("4 faults", "Mine", "Other", "Theirs", "Ours"):
        assert part in str(raised.value)


@pytest.mark.parametrize("trainer", ["nnUNetTrainerBN", "nnUNet_Primus_M_Trainer", "nnUNetTrainerXLSTMUNet"])
def test_trainers_with_other_networks_are_refused(tmp_path, trainer):
    folder, _ = write_training(tmp_path / "in", trainer=trainer)
    with pytest.raises(InputError, match=f"the trainer {trainer} replaces the network"):
        import_nnunet(folder, tmp_path / "model")


@pytest.mark.parametrize(
    ("trainer", "is_known"),
    [
        ("nnUNetTrainer_250epochs", True),
        ("nnUNetTrainer_4000epochs_NoMirroring", True),
        ("nnUNetTrainerDA5", True),
        ("nnUNetTrainerNoDeepSupervision", True),
        ("nnUNetTrainerMine", False),
    ],
)
def test_unknown_trainers_get_a_note(tmp_path, trainer, is_known):
    folder, _ = write_training(tmp_path / "in", 2, trainer=trainer)
    notes = import_nnunet(folder, tmp_path / "model").notes
    assert (notes == ()) == is_known
    assert is_known or trainer in notes[0]


def test_weights_of_another_network_are_refused(tmp_path):
    described = plans({"3d_fullres": configuration(3)})
    other = random_network(architecture(3, features_per_stage=[4, 8, 16]))
    folder = write_folder(tmp_path / "in", described, "3d_fullres", [other])
    with pytest.raises(
        InputError, match=r"fold_0/checkpoint_final.pth: .*encoder.stages.2.0.convs.0.conv.weight"
    ):
        import_nnunet(folder, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


class Hostile:
    def __reduce__(self):
        return (os.system, ("touch HACKED",))


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, _ = write_training(tmp_path / "in")
    path = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    torch.save(content | {"logging": Hostile()}, path, pickle_module=pickle)
    with pytest.raises(InputError, match="holds objects whose loading could run code"):
        import_nnunet(folder, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_other_files_and_folders_are_explained(tmp_path):
    folder, _ = write_training(tmp_path / "Dataset001_Small" / "nnUNetTrainer__nnUNetPlans__3d_fullres")
    with pytest.raises(InputError, match=r"one of its folds. Give .*3d_fullres"):
        import_nnunet(folder / "fold_0", tmp_path / "model")
    with pytest.raises(InputError, match=r"Choose one of .*nnUNetTrainer__nnUNetPlans__3d_fullres"):
        import_nnunet(folder.parent, tmp_path / "model")
    with pytest.raises(InputError, match="got no folder"):
        import_nnunet(tmp_path / "absent", tmp_path / "model")
    with pytest.raises(
        InputError, match=r"no fold has the file checkpoint_best.pth. Choose one of checkpoint_final"
    ):
        import_nnunet(folder, tmp_path / "model", checkpoint="checkpoint_best.pth")
    with pytest.raises(UsageError, match="checkpoint: expected the name of a file"):
        import_nnunet(folder, tmp_path / "model", checkpoint="../checkpoint_final.pth")
    with pytest.raises(UsageError, match="no second stage of a cascade"):
        import_nnunet(folder, tmp_path / "model", first_stage=folder)
    path = folder / "fold_0" / "checkpoint_final.pth"
    torch.save({"state_dict": {}}, path)
    with pytest.raises(InputError, match="expected a checkpoint of nnU-Net v2"):
        import_nnunet(folder, tmp_path / "model")
    path.write_bytes(b"damaged")
    with pytest.raises(InputError, match="damaged"):
        import_nnunet(folder, tmp_path / "model")
    (folder / "plans.json").write_text(json.dumps({"configurations": 1}))
    with pytest.raises(InputError, match="not plans of nnU-Net v2"):
        import_nnunet(folder, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def write_cascade(folder: Path, *, folds: int) -> tuple[Path, Path]:
    """Write both stages of a cascade side by side, and return their folders."""
    low = configuration(3, spacing=[4.0, 2.0, 2.0])
    full = configuration(3, previous_stage="3d_lowres")
    described = plans({"3d_lowres": low, "3d_cascade_fullres": full})
    stages = []
    for name, inputs in (("3d_lowres", 1), ("3d_cascade_fullres", 3)):
        networks = [random_network(full["architecture"], inputs=inputs, seed=fold) for fold in range(folds)]
        path = folder / f"nnUNetTrainer__nnUNetPlans__{name}"
        stages.append(write_folder(path, described, name, networks))
    return stages[0], stages[1]


@pytest.mark.parametrize("folds", [1, 2])
def test_a_cascade_predicts_with_its_first_stage(tmp_path, folds):
    low, full = write_cascade(tmp_path / "in", folds=folds)
    record = import_nnunet(full, tmp_path / "model")
    assert len(record.checkpoints) == folds
    predictor = scanseg.load(tmp_path / "model", device="cpu")
    assert predictor.first_stage is not None
    assert predictor.first_stage.plan.preprocessing.spacing == (4.0, 2.0, 2.0)
    image = np.random.default_rng(0).normal(size=(1, 10, 20, 18)).astype(np.float32)
    found = predictor.predict(image, spacing=(2.0, 1.0, 1.0)).label_map
    first = predictor.first_stage.predict(image, spacing=(2.0, 1.0, 1.0)).label_map
    assert found.shape == first.shape == (10, 20, 18)
    low.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"expected its first stage \(3d_lowres\).*--first-stage"):
        import_nnunet(full, tmp_path / "other")
    import_nnunet(full, tmp_path / "other", first_stage=tmp_path / "elsewhere")
    again = scanseg.load(tmp_path / "other", device="cpu")
    assert again.compute_digest() == predictor.compute_digest()
    with pytest.raises(InputError, match="expected the configuration 3d_lowres as first stage"):
        import_nnunet(full, tmp_path / "no", first_stage=write_training(tmp_path / "single")[0])


@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
def test_single_checkpoints_are_imported_with_a_plan(tmp_path, residual):
    folder, _ = write_training(tmp_path / "in", residual=residual)
    import_nnunet(folder, tmp_path / "model")
    kind = "residual-unet" if residual else "plain-unet"
    checkpoint = folder / "fold_0" / "checkpoint_final.pth"
    import_weights(checkpoint, tmp_path / "single", kind=kind, plan=tmp_path / "model" / "plan.json")
    digests = {scanseg.load(tmp_path / name, device="cpu").compute_digest() for name in ("model", "single")}
    assert len(digests) == 1
