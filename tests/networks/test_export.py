"""Export the networks by `torch.export`, for use without this package."""

import pytest
import torch

from scanseg.networks import MSVMUNet, XLSTMUNet

STRIDES = ((1, 1, 1), (2, 2, 2), (2, 2, 2))


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        pytest.param(lambda: MSVMUNet(1, 4), (1, 1, 64, 64), id="msvm-unet"),
        pytest.param(
            lambda: XLSTMUNet(1, 3, features=(4, 8, 8), patch_size=(16, 16, 16), strides=STRIDES),
            (1, 1, 16, 16, 16),
            id="xlstm-unet",
        ),
    ],
)
@pytest.mark.filterwarnings(  # raised by torch's own exporter
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:The given buffer is not writable:UserWarning",
)
def test_an_exported_network_computes_the_same_after_reading(network, shape, tmp_path):
    torch.manual_seed(0)
    module, image = network().eval(), torch.randn(shape)
    with torch.no_grad():
        torch.export.save(torch.export.export(module, (image,)), tmp_path / "network.pt2")
        read = torch.export.load(tmp_path / "network.pt2").module()
        torch.testing.assert_close(read(image), module(image))
