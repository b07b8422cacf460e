"""What programs do with networks: other classes, partial weights, copies, 64 bits, recomputation, MONAI's losses."""

import copy
import io
import pickle

import pytest
import torch
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from scanseg.errors import InputError
from scanseg.networks import MSVMUNet, load_matching
from tests.networks.test_use_in_code import NETWORKS, image


@pytest.fixture(params=NETWORKS)
def build(request):
    torch.manual_seed(0)
    return NETWORKS[request.param]


@pytest.fixture
def network(build):
    return build().eval()


@torch.no_grad()
def test_classes_are_replaced_and_other_weights_kept(network):
    x = image(2, 1, 64, 32)
    before, features = dict(network.state_dict()), network.features(x)
    network.double().replace_classes(5)
    assert network(x.double()).shape == (2, 5, 64, 32)
    network.float()
    assert all(torch.equal(*pair) for pair in zip(network.features(x), features, strict=True))
    after = network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith(("decoder.heads.", "decoder.classify."))}
    stages = network.train()(x)
    assert all(each.shape[1] == 5 for each in (stages if isinstance(stages, tuple) else (stages,)))
    with pytest.raises(InputError, match="num_classes: expected at least 1, got 0"):
        network.replace_classes(0)


def test_weights_that_fit_are_loaded_with_a_report(build, network):
    weights = {name: value + 1 for name, value in network.state_dict().items()}
    weights["surplus"] = torch.zeros(1)
    left_out = next(name for name in weights if name.startswith("encoder."))
    del weights[left_out]
    target = build()
    target.replace_classes(4)
    before = copy.deepcopy(target.state_dict())
    report = load_matching(target, weights)
    heads = [name for name in before if name.startswith(("decoder.heads.", "decoder.classify."))]
    assert (report.missing, report.surplus) == ((left_out,), ("surplus",))
    assert list(report.other_shapes) == heads
    assert all(shapes[0][0] == 4 and shapes[1][0] == 3 for shapes in report.other_shapes.values())
    assert set(report.loaded) == set(before) - {left_out, *heads}
    for name, value in target.state_dict().items():
        assert torch.equal(value, weights[name] if name in report.loaded else before[name]), name
    assert f"1 missing ({left_out}), 1 surplus (surplus), {len(heads)} of another shape" in str(report)
    with pytest.raises(InputError, match=r"expected names and shapes of the network .*Check prefixes"):
        load_matching(target, {f"module.{name}": value for name, value in weights.items()})


@torch.no_grad()
def test_copies_have_the_same_results(network):
    x = image(2, 1, 64, 32)
    stream = io.BytesIO()
    torch.save(network, stream)
    stream.seek(0)
    copies = (
        copy.deepcopy(network),
        pickle.loads(pickle.dumps(network)),
        torch.load(stream, weights_only=False),
    )
    expected = network(x)
    for parameter in network.parameters():
        parameter.zero_()
    for each in copies:
        assert torch.equal(each(x), expected)


def test_64_bits_agree_with_32(network):
    x = image(2, 1, 64, 32)
    with torch.no_grad():
        expected = network(x)
    wide = network.double()
    logits = wide(x.double())
    assert logits.dtype == torch.float64
    # Measured: at most 1e-6 of the norm.
    assert (logits - expected).norm() <= 1e-5 * expected.norm()
    logits.square().mean().backward()
    gradients = [parameter.grad for parameter in wide.parameters() if parameter.grad is not None]
    assert {each.dtype for each in gradients} == {torch.float64}


def test_recomputed_activations_give_the_same_gradients(build, network):
    network.train()
    wrapped = copy.deepcopy(network)
    passes = []
    for stages in (getattr(wrapped.encoder, "stages", wrapped.encoder), wrapped.decoder.stages):
        for index, stage in enumerate(stages):
            stage.register_forward_pre_hook(lambda *arguments: passes.append(1))
            stages[index] = checkpoint_wrapper(stage)
    num_stages = len(getattr(wrapped.encoder, "stages", wrapped.encoder)) + len(wrapped.decoder.stages)
    assert list(wrapped.state_dict()) == list(network.state_dict())
    for each in (network, wrapped):
        torch.manual_seed(0)
        logits = each(image(2, 1, 64, 32))
        sum(part.square().mean() for part in (logits if isinstance(logits, tuple) else (logits,))).backward()
    for first, second in zip(network.parameters(), wrapped.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad, rtol=0, atol=0)
    assert len(passes) == 2 * num_stages, "each stage is computed twice"


def test_a_loss_of_monai_trains_every_network(network):
    losses = pytest.importorskip("monai.losses", reason="MONAI is not installed")
    loss = losses.DeepSupervisionLoss(losses.DiceCELoss(to_onehot_y=True, softmax=True))
    label_map = (image(2, 1, 64, 32) > 0).float()
    logits = network.train()(image(2, 1, 64, 32))
    loss(list(logits) if isinstance(logits, tuple) else logits, label_map).backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    assert isinstance(network, MSVMUNet) or isinstance(logits, tuple)
