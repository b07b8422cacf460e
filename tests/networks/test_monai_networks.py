"""MONAI's networks in the table: same outputs as MONAI, copies, and a clear error without MONAI."""

import copy
import sys

import pytest
import torch
from torch import nn

from scanseg.errors import InputError, UsageError
from scanseg.networks import build_network
from scanseg.specs import DynUNetSpec, SegResNetSpec, SwinUNETRSpec, UNETRSpec

pytest.importorskip("monai", reason='pip install "scanseg[baselines]"')

STAGES = {
    "features": (4, 8, 12, 16),
    "kernel_sizes": ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
    "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)),
}


@pytest.mark.parametrize("residual", [False, True])
def test_dynunet_equals_monais(residual):
    from monai.networks.nets import DynUNet

    ours = build_network(
        DynUNetSpec(residual_blocks=residual, **STAGES), in_channels=2, num_classes=3, patch_size=(8, 16, 16)
    )
    theirs = DynUNet(
        3,
        2,
        3,
        kernel_size=STAGES["kernel_sizes"],
        strides=STAGES["strides"],
        upsample_kernel_size=STAGES["strides"][1:],
        filters=STAGES["features"],
        deep_supervision=True,
        deep_supr_num=2,
        res_block=residual,
    )
    # MONAI names each layer a second time, inside the layers of its own pass.
    weights = ours.network.state_dict()
    assert set(weights) == {name for name in theirs.state_dict() if not name.startswith("skip_layers.")}
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(weights[name])
        x = torch.randn(1, 2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
        stages, enlarged = ours.train()(x), theirs.train()(x).unbind(1)
    assert [tuple(stage.shape[2:]) for stage in stages] == [(8, 16, 16), (8, 8, 8), (4, 4, 4)]
    for stage, expected in zip(stages, enlarged, strict=True):
        torch.testing.assert_close(nn.functional.interpolate(stage, x.shape[2:]), expected)


def test_dynunet_can_be_copied_after_a_step():
    network = build_network(
        DynUNetSpec(**STAGES), in_channels=1, num_classes=2, patch_size=(8, 16, 16)
    ).train()
    x = torch.ones(1, 1, 8, 16, 16)
    network(x)[0].sum().backward()
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(network).eval()(x), network.eval()(x))


@pytest.mark.parametrize(
    "spec",
    [
        DynUNetSpec(**STAGES),
        SegResNetSpec(num_axes=3),
        UNETRSpec(num_axes=3),
        SwinUNETRSpec(num_axes=3),
    ],
    ids=lambda spec: spec.kind,
)
def test_networks_are_built_without_memory_for_their_weights(spec):
    with torch.device("meta"):
        network = build_network(spec, in_channels=1, num_classes=2, patch_size=(32, 32, 64))
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}


SWIN = SwinUNETRSpec(num_axes=2, features=12, depths=(2, 1, 1, 1), window_size=4, drop_path=0.5)


def build(spec, patch_size=(64, 64), device="cpu"):
    torch.manual_seed(0)
    return build_network(spec, in_channels=1, num_classes=2, patch_size=patch_size).to(device)


def test_recomputation_gives_the_same_results_and_does_not_read_the_random_state(monkeypatch, generator):
    """Reading the random state is not allowed in a CUDA graph."""
    x = torch.randn(2, 1, 64, 64, generator=generator)
    results = []
    for checkpointing in (False, True):
        network = build(SWIN.model_copy(update={"checkpointing": checkpointing})).train()
        if checkpointing:
            network = copy.deepcopy(network)
            monkeypatch.setattr(torch, "get_rng_state", lambda: pytest.fail("the random state is read"))
        torch.manual_seed(1)
        y = network(x)
        y.square().sum().backward()
        results.append((y.detach(), {name: p.grad for name, p in network.named_parameters()}))
    (kept, kept_gradients), (again, again_gradients) = results
    torch.testing.assert_close(again, kept)
    assert kept_gradients.keys() == again_gradients.keys()
    for name, gradient in kept_gradients.items():
        torch.testing.assert_close(again_gradients[name], gradient, msg=name)


def test_recomputed_activations_are_not_kept(generator):
    def kept_bytes(checkpointing):
        sizes = []

        def pack(tensor):
            sizes.append(tensor.numel() * tensor.element_size())
            return tensor

        network = build(SWIN.model_copy(update={"checkpointing": checkpointing})).train()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(torch.randn(2, 1, 64, 64, generator=generator))
        return sum(sizes)

    assert kept_bytes(True) < 0.8 * kept_bytes(False)


GRAPHED = {
    "dynunet": (DynUNetSpec(**STAGES), (8, 16, 16)),
    "segresnet": (SegResNetSpec(num_axes=2, features=8), (64, 64)),
    "unetr": (UNETRSpec(num_axes=2, features=4, hidden_size=24, mlp_dim=32, num_heads=2), (64, 64)),
    "swin-unetr": (SWIN.model_copy(update={"drop_path": 0.0}), (64, 64)),
    "swin-unetr-checkpointing": (
        SWIN.model_copy(update={"drop_path": 0.0, "checkpointing": True}),
        (64, 64),
    ),
}


@pytest.mark.gpu
@pytest.mark.parametrize("name", GRAPHED)
def test_gradients_of_a_cuda_graph_are_those_of_single_launches(name):
    from scanseg.batches.batches import Batch
    from scanseg.training.cuda_graph import GraphedGradients

    spec, size = GRAPHED[name]
    network = build(spec, size, "cuda").train()

    def compute(batch):
        network.zero_grad(set_to_none=False)
        found = network(batch.images)
        stages = found if isinstance(found, tuple) else (found,)
        loss = torch.stack([stage.float().square().mean() for stage in stages]).sum()
        loss.backward()
        return loss.detach()

    labels = torch.zeros(2, *size, dtype=torch.uint8, device="cuda")
    batches = [Batch(torch.randn(2, 1, *size, device="cuda"), labels) for _ in range(3)]
    expected = []
    for batch in batches:
        loss = compute(batch)
        expected.append((loss, [p.grad.clone() for p in network.parameters()]))
    replayed = GraphedGradients(compute, network, batches[0])
    for batch, (loss, gradients) in zip(batches, expected, strict=True):
        # Atomic additions, and products in TF32, differ from call to call.
        torch.testing.assert_close(replayed(batch), loss, rtol=1e-2, atol=1e-4)
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            scale = gradient.abs().max().item()
            torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=0.03 * scale + 1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("name", GRAPHED)
def test_predictions_are_replayed(name, caplog):
    from scanseg.inference.cuda_graph import CudaGraphNetwork

    spec, size = GRAPHED[name]
    network = build(spec, size, "cuda").eval()
    replayed = CudaGraphNetwork(network)
    for _ in range(6):
        x = torch.randn(2, 1, *size, device="cuda")
        with torch.inference_mode():
            torch.testing.assert_close(replayed(x), network(x), rtol=1e-2, atol=1e-3)
    assert len(replayed._graphs) == 1
    assert not caplog.records


def test_a_size_other_than_the_patch_is_refused_by_unetr():
    spec = UNETRSpec(num_axes=2, features=4, hidden_size=24, mlp_dim=32, num_heads=2)
    network = build_network(spec, in_channels=1, num_classes=2, patch_size=(32, 32))
    with pytest.raises(
        InputError, match=r"expected the patch_size \(32, 32\), got \(32, 48\)\. UNETR learns"
    ):
        network(torch.zeros(1, 1, 32, 48))


@pytest.mark.parametrize("missing", ["monai.networks", "einops"])
def test_without_monai_the_message_names_the_package_to_install(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError, match=r'pip install "scanseg\[baselines\]"'):
        build_network(SegResNetSpec(num_axes=2), in_channels=1, num_classes=2, patch_size=(16, 16))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UNETRSpec(num_axes=2, hidden_size=100), "expected a multiple of num_heads 12, got 100"),
        (lambda: SegResNetSpec(num_axes=2, blocks_decoder=(1,)), "one stage less"),
        (
            lambda: SwinUNETRSpec(num_axes=2, num_heads=(5, 6, 12, 24)),
            "expected a divisor of the 48 features of stage 0, got 5",
        ),
        (
            lambda: DynUNetSpec(features=(4, 8), kernel_sizes=((3, 3),) * 2, strides=((1, 1), (2, 2))),
            "expected at least 3 stages for DynUNet, got 2 stages",
        ),
    ],
)
def test_invalid_descriptions_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
