"""Compare networks and weight names with records of the published implementations."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from scanseg.errors import InputError
from scanseg.networks import (
    MSVMUNet,
    load_official,
    official_to_ours,
    ours_to_official,
    verify_record,
)
from scanseg.networks.published.weight_maps import WEIGHT_MAPS

RECORDS = (
    "msvm_unet_2d",
    "msvm_unet_2d_gray_rect",
    "xlstm_unet_bot_2d",
    "xlstm_unet_bot_3d",
    "xlstm_unet_enc_2d",
    "xlstm_unet_enc_2d_dim_mod4_is_2",
    "xlstm_unet_enc_3d",
)


def test_every_record_is_listed(golden):
    assert sorted(path.stem for path in golden.glob("*.safetensors")) == sorted(RECORDS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("record", RECORDS)
def test_outputs_and_gradients_are_the_published_ones(golden, record, dtype):
    result = verify_record(golden / f"{record}.safetensors", dtype=dtype)
    assert result.passed, result
    if dtype is torch.float64:
        # Measured: 6e-14 and 4e-14, far within the bounds.
        assert result.output_difference < 1e-11
        assert result.gradient_difference < 1e-11


@pytest.mark.parametrize("record", RECORDS)
def test_official_names_round_trip(golden, record):
    path = golden / f"{record}.safetensors"
    kind = "msvm-unet" if record.startswith("msvm") else "xlstm-unet"
    official = {
        name.removeprefix("state."): tensor
        for name, tensor in load_file(path).items()
        if name.startswith("state.")
    }
    back = ours_to_official(official_to_ours(official, kind=kind), kind=kind)
    dropped = official.keys() - back.keys()
    assert all(
        "all_modules" in name or name.startswith("decoder.encoder.") or ".norm." in name for name in dropped
    )
    assert bool(dropped) == (kind == "xlstm-unet")
    assert back.keys() <= official.keys()
    assert all(torch.equal(back[name], official[name]) for name in back)


@pytest.fixture
def smallest():
    return MSVMUNet(3, 2, dims=(4, 8, 12, 16), depths=(1, 1, 1, 1))


def test_all_faults_of_a_state_dict_are_in_one_message(smallest):
    official = ours_to_official(smallest.state_dict(), kind="msvm-unet")
    load_official(smallest, official, kind="msvm-unet")
    official["encoder.layers.3.blocks.7.op.Ds"] = official.pop("encoder.layers.3.blocks.0.op.Ds")
    official["encoder.layer0.0.bias"] = torch.zeros(5)
    with pytest.raises(InputError) as raised:
        load_official(smallest, official, kind="msvm-unet")
    for part in (
        "missing encoder.layers.3.blocks.0.op.Ds",
        "unexpected encoder.layers.3.blocks.7.op.Ds",
        "encoder.layer0.0.bias: expected shape (2,), got (5,)",
    ):
        assert part in str(raised.value)


def test_names_of_another_network_are_listed(smallest):
    with pytest.raises(InputError, match=r"unknown names foo\.bar, foo\.weight"):
        official_to_ours({"foo.weight": torch.ones(1), "foo.bar": torch.ones(1)}, kind="msvm-unet")
    with pytest.raises(InputError, match=r"weight map: expected one of .*, got 'unet'"):
        official_to_ours({}, kind="unet")


def test_the_vmamba_map_fills_the_encoder(smallest):
    encoder = smallest.encoder
    official = ours_to_official(encoder.state_dict(), kind="vmamba")
    assert "patch_embed.0.weight" in official
    assert "layers.0.downsample.1.weight" in official
    official["classifier.head.weight"] = torch.ones(1000, 16)
    official["patch_embed.0.weight"] = torch.full_like(official["patch_embed.0.weight"], 3.0)
    load_official(encoder, official, kind="vmamba")
    assert (encoder.stem[0].weight == 3).all()


def test_the_maps_are_one_to_one():
    for weight_map in WEIGHT_MAPS.values():
        for side in ("official", "ours"):
            names = [getattr(rename, side) for rename in weight_map.renames]
            # A residual block's conv1 is a convolution or contains one. Both rows give the same names.
            assert len(names) == len(set(names))


def test_a_file_other_than_a_record_is_refused(tmp_path):
    text = tmp_path / "text.safetensors"
    text.write_text("not a record")
    with pytest.raises(InputError, match=r"text.safetensors: cannot be read"):
        verify_record(text)
    with pytest.raises(InputError, match=r"absent.safetensors: cannot be read"):
        verify_record(tmp_path / "absent.safetensors")
    plain = tmp_path / "plain.safetensors"
    save_file({"weight": torch.ones(1)}, plain)
    with pytest.raises(InputError, match=r"no entry `config`"):
        verify_record(plain)
    save_file({"weight": torch.ones(1)}, plain, metadata={"config": "{"})
    with pytest.raises(InputError, match="is not JSON"):
        verify_record(plain)
    save_file({"weight": torch.ones(1)}, plain, metadata={"config": '{"network": "u-net"}'})
    with pytest.raises(InputError, match="not a record of a known network"):
        verify_record(plain)
    save_file({"weight": torch.ones(1)}, plain, metadata={"config": '{"network": "msvm-unet"}'})
    with pytest.raises(InputError, match=r"missing tensors input, output.0, input_grad"):
        verify_record(plain)


@pytest.fixture
def record(golden):
    path = golden / "xlstm_unet_enc_2d_dim_mod4_is_2.safetensors"
    with safe_open(path, framework="pt") as file:
        return load_file(path), json.loads(file.metadata()["config"])


def _saved(folder, tensors, config):
    path = folder / "changed.safetensors"
    save_file(tensors, path, metadata={"config": json.dumps(config)})
    return path


def test_a_truncated_record_is_refused(golden, tmp_path):
    path = tmp_path / "half.safetensors"
    whole = (golden / "xlstm_unet_enc_2d_dim_mod4_is_2.safetensors").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"half.safetensors: cannot be read"):
        verify_record(path)


def test_a_record_that_misses_a_size_or_a_weight_is_refused(record, tmp_path):
    tensors, config = record
    without = {key: value for key, value in config.items() if key != "strides"}
    with pytest.raises(
        InputError, match=r"changed.safetensors: invalid or missing entry 'strides' in config"
    ):
        verify_record(_saved(tmp_path, tensors, without))
    name = "state.decoder.seg_layers.0.bias"
    fewer = {key: value for key, value in tensors.items() if key != name}
    with pytest.raises(InputError, match=r"changed.safetensors: .*missing decoder.seg_layers.0.bias"):
        verify_record(_saved(tmp_path, fewer, config))


def test_a_wrong_number_does_not_pass(record, tmp_path):
    tensors, config = record
    weight = "state.encoder.xlstm_layers.3.vil.layer.learnable_skip"
    changed = tensors | {weight: tensors[weight] * 1.01}
    result = verify_record(_saved(tmp_path, changed, config))
    assert not result.passed
    assert result.output_difference > result.output_bound
    broken = tensors | {weight: torch.full_like(tensors[weight], torch.nan)}
    assert not verify_record(_saved(tmp_path, broken, config)).passed


def test_a_type_without_bounds_is_refused(golden):
    with pytest.raises(InputError, match=r"got torch.bfloat16, which has no bounds"):
        verify_record(golden / f"{RECORDS[0]}.safetensors", dtype=torch.bfloat16)


def test_networks_alone_import_no_image_library():
    script = (
        "import sys; from scanseg.networks import MSVMUNet, XLSTMUNet; "
        "print([name for name in ('SimpleITK', 'PIL', 'tifffile', 'blosc2', 'matplotlib', 'scanseg.imaging', "
        "'scanseg.dataset') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
