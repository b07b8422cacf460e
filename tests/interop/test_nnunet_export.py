"""Plans and models of ours in the form of nnU-Net."""

import json
import pydoc
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

import scanseg
from scanseg.errors import InputError, UsageError
from scanseg.interop import export_nnunet_model, export_nnunet_plans, import_nnunet
from scanseg.models import ModelFolder, load_model, write_ensemble
from scanseg.planning import PlanRequest
from scanseg.runtime import RunContext
from scanseg.specs import (
    AdamWSpec,
    CTNormalization,
    EnsembleSpec,
    MSVMUNetSpec,
    PlainUNetSpec,
    RescaleNormalization,
    ResidualUNetSpec,
    SamplingSpec,
    ScheduleSpec,
    TrainingSpec,
    XLSTMUNetSpec,
    ZScoreNormalization,
)
from tests.factories import DISCS, make_plan, write_balls_and_boxes, write_disks
from tests.interop.nnunet_folders import UNet

VOLUMES = DISCS.model_copy(update={"file_ending": ".nii.gz"})
CONTEXT = RunContext(num_workers=0, device="cpu")
STAGES = {
    "features": (4, 8, 8),
    "kernel_sizes": ((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2)),
}
PLAIN = PlainUNetSpec(**STAGES, num_convs_encoder=(2, 1, 2), num_convs_decoder=(1, 2))
RESIDUAL = ResidualUNetSpec(**STAGES, num_blocks_encoder=(1, 2, 2), num_convs_decoder=(1, 1))
XLSTM = XLSTMUNetSpec(**STAGES, num_blocks_encoder=1)
FLAT = ResidualUNetSpec(
    features=(4, 8),
    kernel_sizes=((3, 3), (3, 3)),
    strides=((1, 1), (1, 1)),
    num_blocks_encoder=(1, 1),
    num_convs_decoder=(1,),
)


def plan_of(network, **options):
    size = (8, 16, 16)[-network.num_axes :]
    spacing = (2.0, 1.0, 1.0) if network.num_axes == 3 else (None, 1.0, 1.0)
    steps = {"spacing": spacing, "orientation": "RAS", **options.pop("preprocessing", {})}
    return make_plan(network, dataset=VOLUMES, num_axes=3, patch_size=size, preprocessing=steps, **options)


def write_model(path, plan, *, seed=0):
    torch.manual_seed(seed)
    folder = ModelFolder.create(path, plan)
    network = folder.build_network()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder.write_weights(network.state_dict())
    return network.eval()


def export(plan, folder, **options):
    path = folder / "plan.json"
    path.write_text(plan.to_json())
    output = folder / "Dataset001_Small" / "nnUNetPlans_scanseg.json"
    made = export_nnunet_plans(path, output, context=CONTEXT, **options)
    return made, json.loads(output.read_text())


@pytest.mark.parametrize("network", [PLAIN, RESIDUAL, FLAT], ids=["plain", "residual", "stride-1"])
def test_models_become_weights_of_nnunet(tmp_path, network):
    plan = plan_of(network)
    ours = write_model(tmp_path / "model", plan)
    exported = export_nnunet_model(tmp_path / "model", tmp_path / "out")
    assert (exported.folds, exported.notes) == (("0",), ())
    checkpoint = torch.load(tmp_path / "out" / "fold_0" / "checkpoint_final.pth", weights_only=True)
    content = json.loads((tmp_path / "out" / "plans.json").read_text())
    (configuration,) = content["configurations"].values()
    arguments = configuration["architecture"]["arch_kwargs"]
    is_residual = isinstance(network, ResidualUNetSpec)
    theirs = UNet(plan.num_inputs, plan.dataset.num_outputs, arguments, residual=is_residual).eval()
    theirs.load_state_dict(checkpoint["network_weights"])  # nnU-Net loads strictly, with its duplicates
    images = torch.randn(1, plan.num_inputs, *plan.sampling.patch_size)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert checkpoint["init_args"]["configuration"] in content["configurations"]


@pytest.mark.parametrize("network", [PLAIN, RESIDUAL, XLSTM], ids=["plain", "residual", "xlstm"])
def test_a_model_comes_back_unchanged(tmp_path, network):
    plan = plan_of(network)
    for fold in range(2):
        write_model(tmp_path / "model" / f"fold_{fold}", plan, seed=fold)
    write_ensemble(tmp_path / "model", EnsembleSpec(members=("fold_0", "fold_1")))
    assert export_nnunet_model(tmp_path / "model", tmp_path / "out").folds == ("0", "1")
    import_nnunet(tmp_path / "out", tmp_path / "back")
    before, after = (load_model(tmp_path / name, device=torch.device("cpu")) for name in ("model", "back"))
    assert after.plan.network == plan.network
    assert after.plan.preprocessing == plan.preprocessing
    assert after.plan.dataset.labels == plan.dataset.labels
    for name, tensor in before.network.state_dict().items():
        assert torch.equal(tensor, after.network.state_dict()[name]), name


@pytest.mark.parametrize(
    ("network", "num_outputs"),
    [
        (XLSTM, 2),
        (MSVMUNetSpec(dims=(4, 8, 12, 16), depths=(1, 1, 1, 1), decoder_depth=1), 1),
        (MSVMUNetSpec(dims=(4, 8, 12, 16), depths=(1, 1, 1, 1), decoder_depth=1, deep_supervision=True), 4),
    ],
    ids=["xlstm", "msvm", "msvm-deep"],
)
def test_nnunet_builds_the_network_and_switches_deep_supervision(tmp_path, network, num_outputs):
    size = (8, 16, 16) if network.num_axes == 3 else (64, 64)
    sampling = SamplingSpec(patch_size=size, batch_size=2)
    made, content = export(plan_of(network, sampling=sampling), tmp_path)
    (configuration,) = content["configurations"].values()
    architecture = configuration["architecture"]
    assert architecture["_kw_requires_import"] == []
    arguments = json.loads(json.dumps(architecture["arch_kwargs"]))
    kind = pydoc.locate(architecture["network_class_name"])  # as nnU-Net does
    built = kind(input_channels=1, num_classes=3, **arguments, deep_supervision=True).eval()
    images = torch.randn(1, 1, *size)
    every = built(images)
    # nnU-Net's targets have these scales: the strides but for the last stage, multiplied up.
    scales = 1 / np.cumprod(np.vstack(arguments["strides"]), axis=0)[:-1]
    assert [logits.shape[2:] for logits in every] == [
        tuple(int(voxels * scale) for voxels, scale in zip(size, each, strict=True)) for each in scales
    ]
    assert len(every) == num_outputs
    built.decoder.deep_supervision = False  # as nnU-Net does
    with torch.inference_mode():
        assert torch.equal(built(images), every[0])
    assert configuration["scanseg"]["deep_supervision"] == network.deep_supervision
    assert made.dataset_name == content["dataset_name"] == "Dataset001_Small"


def test_another_orientation_is_noted(tmp_path):
    made, content = export(plan_of(PLAIN, preprocessing={"orientation": "LPS"}), tmp_path)
    assert content["image_reader_writer"] == "SimpleITKIO"
    assert "Store images in the orientation LPS" in made.notes[0]


def test_a_plan_becomes_a_configuration(tmp_path):
    plan = plan_of(
        PLAIN,
        preprocessing={
            "axis_order": (2, 0, 1),
            "normalizations": (CTNormalization(lower=-100, upper=300, mean=40, standard_deviation=60),),
            "orientation": "RAS",
            "anisotropy_threshold": 4.0,
        },
    )
    made, content = export(plan, tmp_path)
    assert (content["transpose_forward"], content["transpose_backward"]) == ([2, 0, 1], [1, 2, 0])
    assert made.configurations == ("3d_fullres",)
    assert made.plans_name == content["plans_name"] == "nnUNetPlans_scanseg"
    properties = content["foreground_intensity_properties_per_channel"]["0"]
    assert (properties["percentile_00_5"], properties["mean"], properties["std"]) == (-100, 40, 60)
    configuration = content["configurations"]["3d_fullres"]
    assert configuration["normalization_schemes"] == ["CTNormalization"]
    assert configuration["resampling_fn_data_kwargs"] == {
        "is_seg": False,
        "order": 3,
        "order_z": 0,
        "force_separate_z": None,
        "separate_z_anisotropy_threshold": 4.0,
    }
    assert configuration["patch_size"] == [8, 16, 16]
    assert configuration["spacing"] == [2.0, 1.0, 1.0]


def test_a_data_set_gives_three_configurations(tmp_path):
    dataset = write_balls_and_boxes(tmp_path / "Dataset007_Balls", num_cases=4)
    output = tmp_path / "nnUNetPlans_scanseg.json"
    made = export_nnunet_plans(dataset, output, context=CONTEXT)
    content = json.loads(output.read_text())
    assert made.dataset_name == "Dataset007_Balls"
    assert made.configurations == ("2d", "2d_msvm_unet", "3d_fullres")
    kinds = {
        name: each["architecture"]["arch_kwargs"]["network"]["kind"]
        for name, each in content["configurations"].items()
    }
    assert kinds == {"2d": "xlstm-unet", "2d_msvm_unet": "msvm-unet", "3d_fullres": "xlstm-unet"}
    identifiers = [each["data_identifier"] for each in content["configurations"].values()]
    assert identifiers[0] == identifiers[1] != identifiers[2]
    request = PlanRequest(recipe="plain-unet-2d")
    assert export_nnunet_plans(dataset, output, request=request, context=CONTEXT).configurations == ("2d",)


def test_refusals(tmp_path):
    faulty = plan_of(
        MSVMUNetSpec(),
        preprocessing={
            "spacing": None,
            "slice_size": (32, 32),
            "crop_to_nonzero": False,
            "normalizations": (RescaleNormalization(low=-1),),
        },
        sampling=SamplingSpec(patch_size=(32, 32), batch_size=1, order="every-slice"),
    )
    with pytest.raises(
        InputError, match=r"3 faults(.|\n)*normalizations.0(.|\n)*slice_size(.|\n)*always crops"
    ):
        export(faulty, tmp_path)
    path = tmp_path / "plan.json"
    path.write_text(plan_of(PLAIN).to_json())
    with pytest.raises(UsageError, match=r"ends in \.json"):
        export_nnunet_plans(path, tmp_path / "plans", context=CONTEXT)
    with pytest.raises(UsageError, match="--dataset-name"):
        export_nnunet_plans(path, tmp_path / "plans.json", context=CONTEXT)
    with pytest.raises(UsageError, match="expected a name like Dataset004_Hippocampus, got Mine"):
        export_nnunet_plans(path, tmp_path / "plans.json", dataset_name="Mine", context=CONTEXT)
    dataset = plan_of(PLAIN).dataset.model_copy(update={"file_ending": ".jpg"})
    pictures = plan_of(PLAIN).model_copy(update={"dataset": dataset})
    with pytest.raises(UsageError, match=r"file ending: expected an ending of nnU-Net .*, got .jpg"):
        export(pictures, tmp_path)
    for name, network in (("a", PLAIN), ("b", RESIDUAL)):
        write_model(tmp_path / "pair" / name, plan_of(network))
    write_ensemble(tmp_path / "pair", EnsembleSpec(members=("a", "b"), average="probabilities"))
    with pytest.raises(UsageError, match="average them by nnUNetv2_ensemble"):
        export_nnunet_model(tmp_path / "pair", tmp_path / "out")
    write_ensemble(tmp_path / "pair", EnsembleSpec(members=("a", "b")))
    with pytest.raises(UsageError, match="expected members of one plan"):
        export_nnunet_model(tmp_path / "pair", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "plans.json").exists()


class FakeTrainer:
    """The part of nnU-Net's trainer that ours extends."""

    def __init__(self, plans, configuration, fold, dataset_json, device):
        self.plans_manager = SimpleNamespace(plans_name="p")
        self.configuration_manager = SimpleNamespace(configuration=plans["configurations"][configuration])
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 250, 50
        self.network = torch.nn.Linear(2, 2)

    def _do_i_compile(self):
        return True


@pytest.fixture
def trainer(monkeypatch):
    """Our trainer on a replaced nnU-Net."""
    for name in ("nnunetv2", "nnunetv2.training", "nnunetv2.training.nnUNetTrainer"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    module = ModuleType("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    module.nnUNetTrainer = FakeTrainer
    monkeypatch.setitem(sys.modules, module.__name__, module)
    import scanseg.interop.nnunet_trainer as folder

    (path,) = [each for each in Path(folder.__file__).parent.glob("*.py") if each.name != "__init__.py"]
    return runpy.run_path(str(path))["nnUNetTrainerScanseg"]


def test_the_trainer_follows_the_plan(tmp_path, trainer, monkeypatch):
    spec = TrainingSpec(
        epochs=4,
        iterations_per_epoch=3,
        validation_batches=2,
        optimizer=AdamWSpec(lr=0.5, weight_decay=0.25),
        schedule=ScheduleSpec(kind="cosine", final_lr=0.1),
    )
    made, content = export(plan_of(XLSTM, training=spec), tmp_path)
    assert made.trainer == trainer.__name__
    own = trainer(content, "3d_fullres", 0, {}, torch.device("cpu"))
    assert (own.num_epochs, own.num_iterations_per_epoch, own.num_val_iterations_per_epoch) == (4, 3, 2)
    assert own.enable_deep_supervision
    assert own.oversample_foreground_percent == 0.33
    optimizer, schedule = own.configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    rates = []
    for epoch in range(4):
        schedule.step(epoch)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.5, 0.1 + 0.4 * (1 + 0.5**0.5) / 2, 0.3, 0.1 + 0.4 * (1 - 0.5**0.5) / 2])
    monkeypatch.delenv("nnUNet_compile", raising=False)
    assert not own._do_i_compile()
    monkeypatch.setenv("nnUNet_compile", "1")
    assert own._do_i_compile()
    with pytest.raises(ValueError, match="has no settings of scanseg"):
        trainer({"configurations": {"2d": {}}}, "2d", 0, {}, torch.device("cpu"))


def test_the_commands_export_and_import(tmp_path, capsys):
    from scanseg.cli import main

    dataset = write_disks(tmp_path / "Dataset003_Disks")
    output = tmp_path / "nnUNetPlans_scanseg.json"
    assert main(["export", "nnunet", str(dataset), "-o", str(output), "--num-workers", "0"]) == 0
    shown = capsys.readouterr().out
    assert "2 configurations (2d, 2d_msvm_unet)" in shown
    assert "nnUNetv2_train 3 2d 0 -p nnUNetPlans_scanseg -tr nnUNetTrainerScanseg" in shown
    assert main(["export", "nnunet", str(dataset), "-o", str(output)]) == 2  # exists
    write_model(
        tmp_path / "model", plan_of(PLAIN, preprocessing={"normalizations": (ZScoreNormalization(),)})
    )
    assert main(["export", "nnunet", str(tmp_path / "model"), "-o", str(tmp_path / "out")]) == 0
    assert (
        main(["import", "nnunet", str(tmp_path / "out"), "-o", str(tmp_path / "back"), "--folds", "0"]) == 0
    )
    assert "1 fold" in capsys.readouterr().out
    assert scanseg.load(tmp_path / "back", device="cpu").plan.network == PLAIN
    options = ["--recipe", "plain-unet"]
    assert main(["export", "nnunet", str(tmp_path / "model"), "-o", str(tmp_path / "no"), *options]) == 2
    assert main(["import", "nnunet", str(tmp_path / "absent"), "-o", str(tmp_path / "no")]) == 1
