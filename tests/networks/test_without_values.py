"""Networks are built without values, and without PyTorch's compiler."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scanseg.networks import build_network, without_values
from tests.networks.test_network_contract import PATCHES, SPECS

PROGRAM = """
import sys
from scanseg.networks import build_network, without_values
from tests.networks.test_network_contract import PATCHES, SPECS
for name in sys.argv[1:]:
    with without_values():
        build_network(SPECS[name], in_channels=1, num_classes=2, patch_size=PATCHES[3 if "3d" in name else 2])
print("torch._dynamo" in sys.modules)
"""


@pytest.mark.parametrize("name", ["msvm", "xlstm-enc-2d", "residual-3d"])
def test_shapes_are_those_of_the_network(name):
    arguments = {"in_channels": 1, "num_classes": 2, "patch_size": PATCHES[3 if "3d" in name else 2]}
    with without_values():
        network = build_network(SPECS[name], **arguments)
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"meta"}
    usual = build_network(SPECS[name], **arguments)
    shapes = [{key: tensor.shape for key, tensor in each.state_dict().items()} for each in (network, usual)]
    assert shapes[0] == shapes[1]


def test_the_compiler_is_not_imported():
    """Its import takes seconds, and the plan of a training would wait for it."""
    names = ["xlstm-bot-2d", "xlstm-enc-3d", "residual-3d", "plain-2d"]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, *names],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.stdout.strip() == "False", result.stderr


def test_values_are_drawn_again_afterwards():
    with without_values():
        pass
    assert torch.nn.init.normal_(torch.zeros(100)).norm() > 1
