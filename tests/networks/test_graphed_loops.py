"""Graphed networks in a plain loop, in Lightning and in MONAI's sliding window.

Each test runs on a GPU, and on a CPU with recorded operators instead of CUDA graphs.
"""

import copy
import importlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from scanseg.networks import MSVMUNet, XLSTMUNet, graphed, place_network
from scanseg.networks.graphed import MAX_GRAPHS

from .recorded import RecordedCall

EPS = 1e-3
"""Epsilon of AdamW. A bias before a norm has no gradient but rounding, which a small epsilon makes a full step."""


def msvm():
    return MSVMUNet(1, 3, dims=(16, 16, 24, 32), depths=(1, 1, 1, 1), decoder_depth=1, drop_path=0.0)


def xlstm():
    return XLSTMUNet(1, 3, patch_size=(32, 32), strides=((1, 1), (2, 2), (2, 2)), features=(8, 12, 16))


@pytest.fixture(params=["recorded", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    """A GPU, or a CPU whose operators are recorded and replayed."""
    if request.param == "recorded":
        module = importlib.import_module("scanseg.networks.graphed")
        monkeypatch.setattr(module, "GraphedCall", RecordedCall)
        monkeypatch.setattr(module, "_can_replay", lambda images: not images.requires_grad)
        monkeypatch.setattr(module._Pass, "_warm_up", lambda self, images: None)
        return torch.device("cpu")
    return torch.device("cuda")


@pytest.fixture(params=[msvm, xlstm], ids=["msvm", "xlstm"])
def pair(request, device):
    """Return two equal networks. The second one replays graphs."""
    torch.manual_seed(0)
    network = place_network(request.param(), device)
    return network, graphed(copy.deepcopy(network))


def batches_of(device, sizes=(3, 3, 3, 3, 2)):
    """Return images and label maps. The last batch is smaller."""
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(batch, 1, 32, 32, generator=generator).to(device),
            torch.randint(3, (batch, 32, 32), generator=generator).to(device),
        )
        for batch in sizes
    ]


def loss_of(outputs, label_maps):
    return F.cross_entropy((outputs if isinstance(outputs, torch.Tensor) else outputs[0]).float(), label_maps)


def bound_of(device):
    """Return the largest relative difference in bfloat16. On a GPU, cuDNN may choose other kernels.

    Measured on a CPU: 9e-4. Stale weights or gradients give more than 0.1.
    """
    return 5e-3 if device.type == "cpu" else 2e-2


def assert_equal_weights(network, other, bound):
    for weight, found in zip(network.parameters(), other.parameters(), strict=True):
        assert (weight - found).norm() <= bound * weight.norm() + bound
    for buffer, found in zip(network.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(found, buffer, rtol=bound, atol=bound)


def fit(network, device, *, epochs=2, accumulation=2):
    """Train with autocast, accumulation and clipping, and validate after each epoch."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, eps=EPS)
    losses = []
    for _ in range(epochs):
        network.train()
        for number, (images, label_maps) in enumerate(batches_of(device), start=1):
            with torch.autocast(device.type, dtype=torch.bfloat16):
                loss = loss_of(network(images), label_maps) / accumulation
            loss.backward()
            if number % accumulation == 0:
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
        network.eval()
        with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):
            losses += [
                loss_of(network(images), label_maps).item() for images, label_maps in batches_of(device)[:1]
            ]
    return losses


def test_a_plain_loop_gives_the_same_network(pair, device):
    network, replayed = pair
    bound = bound_of(device)
    assert fit(replayed, device) == pytest.approx(fit(network, device), rel=bound)
    assert_equal_weights(network, replayed, bound)
    # Training and evaluation of full batches, and training of the smaller last batch.
    assert replayed.num_graphs == 3


def test_each_size_of_a_batch_has_a_graph_up_to_a_limit(pair, device):
    network, replayed = pair
    network.eval(), replayed.eval()
    sizes = tuple(range(1, MAX_GRAPHS + 3))
    with torch.no_grad():
        for _ in range(2):
            for images, _ in batches_of(device, sizes):
                torch.testing.assert_close(replayed(images), network(images), rtol=1e-3, atol=1e-3)
    assert replayed.num_graphs == MAX_GRAPHS


@pytest.mark.filterwarnings("ignore")  # Lightning has some of its own, about PyTorch and about loaders
def test_lightning_gives_the_same_network(pair, device, tmp_path):
    lightning = pytest.importorskip("lightning", reason="pip install lightning")

    class Segmentation(lightning.LightningModule):
        def __init__(self, network):
            super().__init__()
            self.network = network
            self.losses = []

        def training_step(self, batch, _):
            return loss_of(self.network(batch[0]), batch[1])

        def validation_step(self, batch, _):
            self.losses.append(loss_of(self.network(batch[0]), batch[1]).item())

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=1e-3, eps=EPS)

    found = []
    for network in pair:
        trainer = lightning.Trainer(
            max_epochs=2,
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            precision="bf16-mixed",
            gradient_clip_val=1.0,
            accumulate_grad_batches=2,
            default_root_dir=tmp_path,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        module = Segmentation(network)
        loaders = (batches_of(device), batches_of(device)[:1])
        trainer.fit(module, *(torch.utils.data.DataLoader(each, batch_size=None) for each in loaders))
        network.to(device)
        found.append(module.losses)
    bound = bound_of(device)
    assert found[1] == pytest.approx(found[0], rel=bound)
    assert_equal_weights(*pair, bound)
    assert pair[1].num_graphs >= 3


def test_the_sliding_window_of_monai_gives_the_same_logits(pair, device):
    inferers = pytest.importorskip("monai.inferers", reason="pip install 'scanseg[baselines]'")
    network, replayed = pair
    network.eval(), replayed.eval()
    inferer = inferers.SlidingWindowInferer(roi_size=(32, 32), sw_batch_size=4, overlap=0.25)
    image = torch.randn(1, 1, 80, 70, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.inference_mode():
        for _ in range(2):
            torch.testing.assert_close(
                inferer(image, replayed), inferer(image, network), rtol=1e-3, atol=1e-3
            )
    assert replayed.num_graphs == 2  # nine windows: two batches of four, and one of one
