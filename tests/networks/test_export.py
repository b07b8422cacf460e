"""Export the networks by `torch.export`, for use without this package."""

import logging
import subprocess
import sys

import pytest
import torch

from scanseg.networks import build_network

from .test_network_contract import SPECS, built, image, other_size, patch_of

pytestmark = pytest.mark.filterwarnings(  # raised by torch's own exporter, and while it traces MONAI
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:The given buffer is not writable:UserWarning",
    "ignore:.*TracerWarning",
    "ignore::torch.jit.TracerWarning",
)

# Blocks this package, loads each file, and compares its results with those of the network.
LOAD = """
import sys, warnings
from pathlib import Path
sys.modules["scanseg"] = sys.modules["monai"] = None
import torch
warnings.simplefilter("ignore")
folder = Path(sys.argv[1])
for file in sorted(folder.glob("*.pt2")):
    network = torch.export.load(file).module()
    cases = torch.load(file.with_suffix(".pt"), weights_only=True)
    for images, expected in cases:
        with torch.no_grad():
            # Measured: 1.1e-5, since sums have another order.
            bound = {"rtol": 1e-4, "atol": 1e-4, "msg": lambda text: f"{file.stem}: {text}"}
            torch.testing.assert_close(network(images), expected, **bound)
    print(file.stem)
"""


@pytest.fixture(autouse=True)
def _without_trace(monkeypatch):
    """Switch off the records of torch's tracer, which pytest would collect for minutes."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)


FIXED_SIZES = ("unetr", "swin-unetr")
"""Networks of MONAI whose exported graphs have the sizes of the example."""


def export(name, folder, *, any_size, network=None):
    """Write a network, and its results for several batches and sizes of images."""
    spec, network = SPECS[name], (network or built(name)).eval()
    any_size = any_size and spec.kind not in FIXED_SIZES
    axes = [0, *range(2, 2 + spec.num_axes)] if any_size else [0]
    exported = torch.export.export(
        network, (image(name),), dynamic_shapes=(dict.fromkeys(axes, torch.export.Dim.DYNAMIC),)
    )
    operators = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    # ONNX has no `cummax` and no contexts.
    unwanted = ("scanseg", "cummax", "wrap_with_autocast")
    assert not [each for each in operators if any(part in each for part in unwanted)], name
    torch.export.save(exported, folder / f"{name}.pt2")
    sizes = [patch_of(spec), *([other_size(spec)] if any_size else [])]
    images = [image(name, size=size, batch=batch) for size in sizes for batch in (1, 3)]
    torch.save([(each, network(each)) for each in images], folder / f"{name}.pt")


def check_files(folder, names):
    outcome = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder)], capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.split() == sorted(names)


QUICK = ("xlstm-enc-3d", "plain-2d")
"""Networks of the default run. Each export takes seconds, and that of MSVM-UNet with any size takes minutes."""


def built_of_few_blocks(name):
    """Return a network of the table with one block in each stage, whose graph is smaller."""
    blocks = {"num_blocks_encoder": 1, "num_blocks_decoder": 1} if SPECS[name].kind == "xlstm-unet" else {}
    torch.manual_seed(0)
    spec = SPECS[name].model_copy(update=blocks)
    return build_network(spec, in_channels=3, num_classes=4, patch_size=patch_of(spec))


@torch.no_grad()
def test_exported_networks_need_only_torch_and_take_any_batch_and_size(tmp_path):
    for name in QUICK:
        export(name, tmp_path, any_size=True, network=built_of_few_blocks(name))
    export("msvm", tmp_path, any_size=False)
    check_files(tmp_path, [*QUICK, "msvm"])


@pytest.mark.slow
@torch.no_grad()
def test_every_network_of_the_table_is_exported(tmp_path):
    pytest.importorskip("monai", reason='pip install "scanseg[baselines]"')
    names = list(SPECS)
    for name in names:
        export(name, tmp_path, any_size=True)
    check_files(tmp_path, names)
