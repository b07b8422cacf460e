"""A network being fitted: it learns, and goes on exactly from a checkpoint."""

import pytest
import torch

from scanseg.errors import ScansegError
from scanseg.models import ModelFolder
from scanseg.networks import build_network
from scanseg.runtime import RunContext
from scanseg.specs import (
    AdamWSpec,
    MSVMUNetSpec,
    SGDSpec,
    TrainingSpec,
    XLSTMUNetSpec,
)
from scanseg.training.step import TrainingStep
from tests.factories import make_plan, make_square_batch

XLSTM = XLSTMUNetSpec(
    features=(4, 8, 12), strides=((1, 1), (2, 2), (2, 2)), kernel_sizes=((3, 3),) * 3, num_blocks_encoder=1
)
MSVM = MSVMUNetSpec(dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), decoder_depth=1, drop_path=0.5)
NETWORKS = pytest.mark.parametrize(("network", "size"), [(XLSTM, 16), (MSVM, 64)], ids=["xlstm", "msvm"])


def plan_of(network, size, *, optimizer, **training):
    """Return a plan of square pictures."""
    training = TrainingSpec(optimizer=optimizer, **training)
    return make_plan(network, patch_size=(size, size), training=training)


def make_step(plan, *, device="cpu", dtype=None, **options):
    torch.manual_seed(0)
    network = build_network(plan.network, in_channels=1, num_classes=2, patch_size=plan.sampling.patch_size)
    device = torch.device(device)
    return TrainingStep(
        plan, network.to(device), context=RunContext(device=device), autocast_dtype=dtype, **options
    )


def weights(step):
    return torch.cat([parameter.detach().flatten() for parameter in step.network.parameters()])


@NETWORKS
@pytest.mark.parametrize(
    "optimizer", [AdamWSpec(lr=3e-3), SGDSpec(lr=0.02, momentum=0.9)], ids=["adamw", "sgd"]
)
def test_loss_falls(network, size, optimizer):
    step = make_step(plan_of(network, size, optimizer=optimizer))

    losses = [float(step.run(make_square_batch(size, i), lr=optimizer.lr)) for i in range(25)]

    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


@NETWORKS
@pytest.mark.parametrize("optimizer", [AdamWSpec(), SGDSpec()], ids=["adamw", "sgd"])
def test_goes_on_exactly_from_a_stored_checkpoint(network, size, optimizer, tmp_path):
    plan = plan_of(network, size, optimizer=optimizer)
    whole, first, second = make_step(plan), make_step(plan), make_step(plan)
    folder = ModelFolder.create(tmp_path / "model", plan)
    for iteration in range(4):
        whole.run(make_square_batch(size, iteration), lr=0.01)

    for iteration in range(2):
        first.run(make_square_batch(size, iteration), lr=0.01)
    folder.write_checkpoint(first.checkpoint())
    second.restore(folder.read_checkpoint())
    for iteration in range(second.iterations_done, 4):
        second.run(make_square_batch(size, iteration), lr=0.01)

    assert torch.equal(weights(second), weights(whole))
    assert not torch.equal(weights(first), weights(whole))


class DrawingGradients:
    """Stands for a CUDA graph on the CPU: the warm-ups before its capture draw from torch's generator."""

    def __init__(self, compute, network, batch, *, communicates):
        assert not communicates
        torch.rand(100)
        self._compute, self._network = compute, network

    def __call__(self, batch):
        self._network.zero_grad(set_to_none=True)
        return self._compute(batch)


def test_a_capture_does_not_change_what_the_first_step_draws(monkeypatch):
    monkeypatch.setattr("scanseg.training.step.GraphedGradients", DrawingGradients)
    plan = plan_of(MSVM, 64, optimizer=AdamWSpec(lr=1e-3))
    running, restored = make_step(plan), make_step(plan)
    for step in (running, restored):
        monkeypatch.setattr(step, "_device", torch.device("cuda"))
    running.run(make_square_batch(64, 0), lr=1e-3)
    restored.restore(running.checkpoint())

    losses = [float(step.run(make_square_batch(64, 1), lr=1e-3)) for step in (running, restored)]

    assert losses[0] == losses[1]


def test_the_scale_of_a_float16_loss_goes_on_too(tmp_path):
    plan = plan_of(XLSTM, 16, optimizer=AdamWSpec())
    first, second = (make_step(plan, dtype=torch.float16) for _ in range(2))
    folder = ModelFolder.create(tmp_path / "model", plan)
    for iteration in range(20):
        first.run(make_square_batch(16, iteration), lr=0.001)

    folder.write_checkpoint(first.checkpoint())
    second.restore(folder.read_checkpoint())

    assert first.checkpoint().state.num_steps_at_loss_scale > 0
    assert second.checkpoint().state == first.checkpoint().state


def test_norms_and_biases_decay_only_if_asked():
    def decays(**fields):
        step = make_step(plan_of(MSVM, 64, optimizer=AdamWSpec(weight_decay=0.1, **fields)))
        return [group["weight_decay"] for group in step.checkpoint().state.optimizer_groups]

    assert decays() == [0.1, 0.0]
    assert decays(decay_all=True) == [0.1, 0.1]


def test_gradients_are_clipped():
    plan = plan_of(XLSTM, 16, optimizer=SGDSpec(lr=1.0, momentum=0, weight_decay=0), gradient_clip=1e-3)
    step = make_step(plan)
    before = weights(step)

    step.run(make_square_batch(16, 0), lr=1.0)

    assert (weights(step) - before).norm().item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.gpu
@NETWORKS
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_a_graph_trains_like_single_launches(network, size, dtype):
    if isinstance(network, MSVMUNetSpec):
        network = network.model_copy(update={"drop_path": 0.0})

    def train(*, cuda_graph):
        plan = plan_of(network, size, optimizer=AdamWSpec(lr=1e-3), cuda_graph=cuda_graph)
        step = make_step(plan, device="cuda", dtype=dtype)
        losses = [float(step.run(make_square_batch(size, i, device="cuda"), lr=1e-3)) for i in range(10)]
        buffers = [buffer.double().cpu() for buffer in step.network.buffers()]
        return torch.tensor(losses), buffers

    (graphed, graphed_buffers), (launched, launched_buffers) = train(cuda_graph=True), train(cuda_graph=False)

    torch.testing.assert_close(graphed, launched, rtol=0.02, atol=0)
    for ours, theirs in zip(graphed_buffers, launched_buffers, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05)
    assert graphed[-1] < graphed[0]


@pytest.mark.gpu
def test_parts_of_a_batch_and_averages_go_through_a_graph_too():
    def train(*, cuda_graph):
        fields = {"accumulation": 2, "ema_decay": 0.9, "cuda_graph": cuda_graph}
        step = make_step(plan_of(XLSTM, 16, optimizer=AdamWSpec(lr=1e-3), **fields), device="cuda")
        for iteration in range(5):
            step.run(make_square_batch(16, iteration, device="cuda"), lr=1e-3)
        return weights(step), torch.cat([p.flatten() for p in step.eval_network.parameters()])

    for graphed, launched in zip(train(cuda_graph=True), train(cuda_graph=False), strict=True):
        torch.testing.assert_close(graphed, launched, rtol=0.02, atol=1e-3)


@pytest.mark.gpu
@NETWORKS
@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_replayed_validation_follows_the_weights_and_leaves_the_training_alone(network, size, ema_decay):
    if isinstance(network, MSVMUNetSpec):
        network = network.model_copy(update={"drop_path": 0.0})
    plan = plan_of(network, size, optimizer=AdamWSpec(lr=1e-3), ema_decay=ema_decay)
    unseen = make_square_batch(size, 99, device="cuda")

    def train(*, validated):
        step = make_step(plan, device="cuda", dtype=torch.bfloat16)
        losses, scores = [], []
        for iteration in range(8):
            losses.append(float(step.run(make_square_batch(size, iteration, device="cuda"), lr=1e-3)))
            if validated:
                scores.append([step.logits(unseen) for _ in range(3)])
                with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16):
                    direct = step.eval_network.eval()(unseen.images)
                direct = direct if isinstance(direct, torch.Tensor) else direct[0]
                for logits in scores[-1]:
                    torch.testing.assert_close(logits, direct.float(), rtol=0.02, atol=0.02)
        return torch.tensor(losses), scores

    losses, scores = train(validated=True)
    torch.testing.assert_close(losses, train(validated=False)[0], rtol=0.02, atol=0)
    assert not torch.allclose(scores[-2][0], scores[-1][0], rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
def test_stochastic_depth_differs_from_replay_to_replay():
    plan = plan_of(MSVM, 64, optimizer=AdamWSpec(lr=1e-9))
    step = make_step(plan, device="cuda")
    batch = make_square_batch(64, 0, device="cuda")

    losses = {round(float(step.run(batch, lr=1e-9)), 6) for _ in range(8)}

    assert len(losses) > 3


@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graph", [True, False])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_goes_on_with_the_same_stochastic_depth_on_a_gpu(cuda_graph, dtype, tmp_path):
    plan = plan_of(MSVM, 64, optimizer=AdamWSpec(lr=1e-3), cuda_graph=cuda_graph)
    running, restored = (make_step(plan, device="cuda", dtype=dtype) for _ in range(2))
    for iteration in range(3):
        running.run(make_square_batch(64, iteration, device="cuda"), lr=1e-3)
    folder = ModelFolder.create(tmp_path / "model", plan)
    folder.write_checkpoint(running.checkpoint())
    restored.restore(folder.read_checkpoint())

    batch = make_square_batch(64, 3, device="cuda")
    losses = [float(step.run(batch, lr=1e-3)) for step in (running, restored)]

    # Atomic additions make a GPU's sums differ in their last bits; another draw of blocks moves the loss by far more.
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.gpu
def test_a_network_that_cannot_be_captured_is_told_of():
    step = make_step(plan_of(XLSTM, 16, optimizer=AdamWSpec(lr=1e-3)), device="cuda")

    def read_back(module, inputs):
        inputs[0].sum().item()

    step.network.register_forward_pre_hook(read_back)
    with pytest.raises(
        ScansegError, match=r"cannot be captured as a CUDA graph \(.*--set training.cuda_graph=false"
    ):
        step.run(make_square_batch(16, 0, device="cuda"), lr=1e-3)

    launched = plan_of(MSVM, 64, optimizer=AdamWSpec(lr=1e-3), cuda_graph=False)
    loss = make_step(launched, device="cuda").run(make_square_batch(64, 0, device="cuda"), lr=1e-3)
    assert loss.isfinite()  # the next training of a study draws its blocks again
