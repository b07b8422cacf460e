"""Export the networks by `torch.export`, for use without this package."""

import subprocess
import sys

import pytest
import torch

from .test_network_contract import BASELINES, SPECS, built, image, other_size, patch_of

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
            torch.testing.assert_close(network(images), expected, msg=lambda text: f"{file.stem}: {text}")
    print(file.stem)
"""


def dynamic_sizes(name):
    """Return the dynamic axes of a network: the batch, and the spatial axes unless the network fixes them."""
    spec = SPECS[name]
    axes = [0] if spec.kind == "unetr" else [0, *range(2, 2 + spec.num_axes)]
    return ({axis: torch.export.Dim.DYNAMIC for axis in axes},)


def export(name, folder):
    """Write a network, and its results for images of several sizes."""
    network = built(name).eval()
    exported = torch.export.export(network, (image(name),), dynamic_shapes=dynamic_sizes(name))
    torch.export.save(exported, folder / f"{name}.pt2")
    sizes = {patch_of(SPECS[name])} if SPECS[name].kind == "unetr" else {patch_of(SPECS[name]), other_size(SPECS[name])}
    images = [image(name, size=size, batch=batch) for size in sorted(sizes) for batch in (1, 3)]
    torch.save([(each, network(each)) for each in images], folder / f"{name}.pt")


@torch.no_grad()
def test_exported_networks_need_only_torch_and_take_any_batch_and_size(tmp_path):
    pytest.importorskip("monai", reason='pip install "scanseg[baselines]"')
    for name in SPECS:
        export(name, tmp_path)
    outcome = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.split() == sorted(SPECS)
