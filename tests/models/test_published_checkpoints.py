"""Checkpoints in the forms of the published codes become models, or are refused with all names."""

import argparse
import collections
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scanseg.errors import InputError, UsageError
from scanseg.models import ModelFolder
from scanseg.models.published_checkpoints import import_encoder, import_model, load_encoder, read_official
from scanseg.networks import MSVMUNet, ours_to_official
from scanseg.specs import (
    ImportRecord,
    InferenceSpec,
    MSVMUNetSpec,
    RescaleNormalization,
    XLSTMUNetSpec,
)
from tests.factories import make_plan


def msvm_plan():
    return make_plan(
        MSVMUNetSpec(dims=(4, 8, 12, 16), depths=(1, 1, 1, 1), decoder_depth=1),
        patch_size=(64, 64),
        recipe="msvm-unet",
        preprocessing={
            "crop_to_nonzero": False,
            "normalizations": (RescaleNormalization(low=-1, high=1),),
            "slice_size": (64, 64),
            "label_order": 0,
        },
        inference=InferenceSpec(mode="slices"),
    )


def xlstm_plan():
    network = XLSTMUNetSpec(
        features=(4, 8, 16),
        strides=((1, 1), (2, 2), (2, 2)),
        kernel_sizes=((3, 3),) * 3,
        num_blocks_encoder=1,
    )
    return make_plan(network, patch_size=(32, 32), recipe="xlstm-unet")


PLANS = {"msvm-unet": msvm_plan, "xlstm-unet": xlstm_plan}


def network_of(plan, seed=0):
    """A network of a plan with weights that no other has."""
    torch.manual_seed(seed)
    network = ModelFolder(None, plan).build_network()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def official(network, kind, *, prefix=""):
    state = ours_to_official(network.state_dict(), kind=kind)
    return collections.OrderedDict((prefix + name, tensor) for name, tensor in state.items())


def lightning(network):
    """Return a checkpoint of Lightning: the network as `_model`, beside buffers of the loss."""
    weights = official(network, "msvm-unet", prefix="_model.")
    weights["_criterion.class_weights"] = torch.ones(2)
    return {
        "epoch": 3,
        "global_step": 99,
        "pytorch-lightning_version": "2.2.0",
        "state_dict": weights,
        "callbacks": {"ModelCheckpoint{'monitor': 'mean_dice'}": {"best_model_score": torch.tensor(0.8)}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(9.0)}}, "param_groups": [{"lr": 1e-4}]}],
        "hyper_parameters": argparse.Namespace(lr=1e-4),
    }


def nnunet(network):
    """Return a checkpoint of nnU-Net: numpy's numbers in the log, plans, a device; names doubled as published."""
    weights = official(network, "xlstm-unet")
    weights |= {f"decoder.{name}": tensor for name, tensor in weights.items() if name.startswith("encoder.")}
    return {
        "network_weights": weights,
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 1e-2}]},
        "grad_scaler_state": None,
        "logging": {
            "mean_fg_dice": [np.float64(0.5), np.float32(0.25)],
            "epochs": [np.int64(3)],
            "ema": [np.float16(1)],
        },
        "_best_ema": np.float64(0.75),
        "current_epoch": 4000,
        "init_args": {"device": torch.device("cpu"), "plans": {"patch_size": [32, 32]}, "fold": "all"},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1),
    }


FORMS = {
    "lightning": ("msvm-unet", lightning),
    "nnunet": ("xlstm-unet", nnunet),
    "state-dict": ("msvm-unet", lambda network: official(network, "msvm-unet", prefix="module.")),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_a_model_with_its_weights(form, tmp_path, command):
    kind, make = FORMS[form]
    plan = PLANS[kind]()
    network = network_of(plan)
    path, plan_path, output = tmp_path / "weights.ckpt", tmp_path / "plan.json", tmp_path / "model"
    torch.save(make(network), path)
    plan_path.write_text(plan.to_json())
    outcome = command("weights", "import", path, "--network", kind, "--plan", plan_path, "-o", output)
    assert outcome.code == 0, outcome.stderr
    assert f"{len(network.state_dict())} tensors of {kind} from weights.ckpt ({form})" in outcome.stdout
    record = ImportRecord.read(output / "import.json")
    assert record.left_out == (("_criterion.class_weights",) if form == "lightning" else ())
    assert len(record.sha256) == 64
    loaded = ModelFolder.open(output).load_network(device=torch.device("cpu"))
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0)


def test_the_imported_model_predicts_as_the_network(tmp_path):
    import PIL.Image

    from scanseg.inference import load

    plan = xlstm_plan()
    torch.save(nnunet(network_of(plan)), tmp_path / "checkpoint_final.pth")
    import_model(tmp_path / "checkpoint_final.pth", tmp_path / "model", plan=plan, kind="xlstm-unet")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 48)).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "image.png")
    prediction = load(tmp_path / "model", device="cpu").predict(tmp_path / "image.png")
    assert prediction.label_map.shape == (40, 48)
    assert set(np.unique(prediction.label_map)) <= {0, 1}


def test_numbers_of_numpy_1_are_read(tmp_path):
    """The published checkpoints are older than numpy 2, which moved the module of its scalars."""
    network = network_of(xlstm_plan())
    torch.save(nnunet(network), tmp_path / "new.pth")
    old = tmp_path / "checkpoint_final.pth"
    changed = 0
    with zipfile.ZipFile(tmp_path / "new.pth") as source, zipfile.ZipFile(old, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("/data.pkl"):
                changed = content.count(b"cnumpy._core.multiarray\nscalar\n")
                content = content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
            target.writestr(name, content)
    assert changed > 0
    assert read_official(old).weights.keys() == read_official(tmp_path / "new.pth").weights.keys()
    import_model(old, tmp_path / "model", plan=xlstm_plan(), kind="xlstm-unet")


def test_names_of_wrapped_networks(tmp_path):
    network = network_of(msvm_plan())
    weights = official(network, "msvm-unet", prefix="_model._orig_mod.")
    torch.save({"state_dict": weights}, tmp_path / "a.ckpt")
    assert read_official(tmp_path / "a.ckpt").weights.keys() == official(network, "msvm-unet").keys()


def test_names_that_do_not_fit_are_all_listed_and_nothing_is_written(tmp_path):
    content = lightning(network_of(msvm_plan()))
    weights = content["state_dict"]
    weights["_model.encoder.layers.3.blocks.7.op.Ds"] = weights.pop("_model.encoder.layers.3.blocks.0.op.Ds")
    weights["_model.encoder.layer0.0.bias"] = torch.zeros(5)
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(InputError) as caught:
        import_model(tmp_path / "a.ckpt", tmp_path / "model", plan=msvm_plan(), kind="msvm-unet")
    for part in (
        str(tmp_path / "a.ckpt"),
        "missing encoder.layers.3.blocks.0.op.Ds",
        "unexpected encoder.layers.3.blocks.7.op.Ds",
        "encoder.layer0.0.bias: expected shape (2,), got (5,)",
    ):
        assert part in str(caught.value), part
    assert not (tmp_path / "model").exists()


class Harm:
    """An object that would run code if it were loaded."""

    def __reduce__(self):
        return (print, ("harm is done",))


def test_objects_that_could_run_code_are_refused(tmp_path, capsys):
    torch.save({"state_dict": {}, "config": Harm()}, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match=r"could run code, and is refused: builtins\.print\."):
        read_official(tmp_path / "a.ckpt")
    assert "harm" not in capsys.readouterr().out


class Shell:
    """Would run a command of the shell."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


class Numpy:
    """Hides a call behind one of the allowed names' neighbours."""

    def __reduce__(self):
        return (np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"))


@pytest.mark.parametrize("key", ["state_dict", "network_weights", "model", "logging"])
def test_no_place_in_a_file_is_trusted(key, tmp_path, command):
    """Whole files, nested in weights or beside them, in torch's form and as a plain pickle."""
    harm = tmp_path / "harm"
    content = {"network_weights": {"a": torch.ones(1)}, key: {"a": torch.ones(1), "b": [Shell(harm)]}}
    torch.save(content, tmp_path / "zip.pth")
    torch.save(content, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(content["network_weights"] | {"b": Shell(harm)}))
    for name in ("zip.pth", "legacy.pth", "plain.pth"):
        outcome = command(
            "weights", "import", tmp_path / name, "--network", "vmamba", "-o", tmp_path / "e.safetensors"
        )
        assert outcome.code == 1, name
        assert outcome.stderr.startswith(f"error: {tmp_path / name}: "), name
        assert "could run code, and is refused: posix.system" in outcome.stderr or name == "plain.pth", name
    assert not harm.exists()
    assert not (tmp_path / "e.safetensors").exists()
    torch.save({"state_dict": {"a": torch.ones(1)}, "x": Numpy()}, tmp_path / "numpy.pth")
    with pytest.raises(InputError, match=r"_reconstruct"):
        read_official(tmp_path / "numpy.pth")


def test_files_that_are_no_checkpoints(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_official(tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("no checkpoint")
    with pytest.raises(InputError, match=r"text\.pth: not a checkpoint of torch, or damaged"):
        read_official(tmp_path / "text.pth")
    # Text that unpickles to nothing: `r0` and `}` are instructions, on an empty stack.
    for text in ("root:x:0:0:root:/root:/bin/bash\n", "}0r\n", "a,b\n1,2\n"):
        (tmp_path / "text.pth").write_text(text)
        with pytest.raises(InputError, match=r"text\.pth: not a checkpoint of torch, or damaged"):
            read_official(tmp_path / "text.pth")
    torch.save({"weights": 1, "epoch": 2}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"expected weights under .* got weights, epoch"):
        read_official(tmp_path / "other.pth")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(InputError, match="expected a dictionary as checkpoint, got a list"):
        read_official(tmp_path / "list.pth")
    torch.save({"state_dict": {"a": 1}}, tmp_path / "numbers.pth")
    with pytest.raises(InputError, match="holds no tensors as weights"):
        read_official(tmp_path / "numbers.pth")
    torch.save({"state_dict": {"a": torch.ones(1000)}}, tmp_path / "cut.pth")
    whole = (tmp_path / "cut.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged"):
        read_official(tmp_path / "cut.pth")


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """VMamba's file: the weights of the encoder under `model`, with a classifier; and that encoder."""
    torch.manual_seed(1)
    encoder = MSVMUNet(3, 2).encoder
    weights = ours_to_official(encoder.state_dict(), kind="vmamba")
    weights |= {"classifier.norm.weight": torch.ones(768), "classifier.head.bias": torch.zeros(1000)}
    path = tmp_path_factory.mktemp("imagenet") / "vssm1_tiny_0230s_ckpt_epoch_264.pth"
    torch.save({"model": weights, "epoch": 264, "max_accuracy": np.float64(82.6)}, path)
    return path, encoder.state_dict()


def test_imagenet_weights_of_the_encoder(imagenet, tmp_path, command):
    path, expected = imagenet
    output = tmp_path / "encoder.safetensors"
    outcome = command("weights", "import", path, "--network", "vmamba", "-o", output)
    assert outcome.code == 0, outcome.stderr
    stored = load_file(output)
    assert stored.keys() == expected.keys()
    for source in (path, output):
        network = MSVMUNet(1, 5)
        load_encoder(network, source)
        for name, tensor in network.encoder.state_dict().items():
            torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)


def test_an_encoder_of_other_sizes_is_refused(imagenet, tmp_path):
    path, _ = imagenet
    small = MSVMUNet(3, 2, dims=(4, 8, 12, 16), depths=(1, 1, 1, 1))
    with pytest.raises(InputError, match=r"unexpected layers\.2\.blocks\.7"):
        load_encoder(small, path)
    import_encoder(path, tmp_path / "encoder.safetensors")
    with pytest.raises(
        InputError, match=r"the weights do not fit the encoder: .* is unexpected.*and .* more"
    ):
        load_encoder(small, tmp_path / "encoder.safetensors")
    tensors = load_file(tmp_path / "encoder.safetensors")
    save_file({name: tensor.int() for name, tensor in tensors.items()}, tmp_path / "integers.safetensors")
    with pytest.raises(InputError, match="expected type float32, got int32"):
        load_encoder(MSVMUNet(3, 2), tmp_path / "integers.safetensors")
    with pytest.raises(InputError, match=r"no such file.*releases of https.*--from-scratch"):
        load_encoder(small, tmp_path / "absent.pth")


def test_wrong_use(imagenet, tmp_path, command):
    plan_path = tmp_path / "plan.json"
    plan_path.write_text(msvm_plan().to_json())
    path = imagenet[0]
    for words, message in (
        (("--network", "msvm-unet", "-o", tmp_path / "m"), "needs a plan"),
        (("--network", "xlstm-unet", "-o", tmp_path / "m", "--plan", plan_path), "the plan is for msvm-unet"),
        (("--network", "vmamba", "-o", tmp_path / "m.safetensors", "--plan", plan_path), "has no plan"),
        (("--network", "vmamba", "-o", tmp_path / "m"), "ending in .safetensors"),
    ):
        outcome = command("weights", "import", path, *words)
        assert outcome.code == 2, words
        assert message in outcome.stderr, words
    with pytest.raises(UsageError, match="exists and is not an empty folder"):
        import_model(path, tmp_path, plan=msvm_plan(), kind="msvm-unet")


def test_the_command_names_every_kind():
    from typing import get_args, get_type_hints

    from scanseg.cli.weights import import_checkpoint
    from scanseg.networks.published.weight_maps import WEIGHT_MAPS

    assert set(get_args(get_type_hints(import_checkpoint)["network"])) == set(WEIGHT_MAPS)


def test_the_record_is_plain_json(imagenet, tmp_path):
    record = import_encoder(imagenet[0], tmp_path / "encoder.safetensors")
    assert json.loads(record.to_json())["network"] == "vmamba"
    assert record.form == "vmamba"
