from dataclasses import replace

import pytest
import torch

from scanseg.layers import ss2d, vil_block
from scanseg.layers.recomputation import SMALLEST_BYTES
from scanseg.networks import build_network
from scanseg.planning import RECIPES
from scanseg.planning.memory import MAP_BYTES, Counts, count_values, step_memory
from scanseg.planning.recipes import plan_recipe as make_plan
from scanseg.settings import apply_settings
from scanseg.specs import DatasetSpec
from tests.factories import make_fingerprint

MEASURED = ("plain-unet", "residual-unet", "xlstm-unet", "xlstm-unet-2d", "msvm-unet")


def plan_of(recipe, *, num_labels=2, settings=()):
    fingerprint = make_fingerprint([(1.0, 1.0, 1.0)] * 40, [(36, 50, 35)] * 40)
    labels = {"background": 0} | {f"label {value}": value for value in range(1, num_labels + 1)}
    dataset = DatasetSpec(name="set", channel_names=("MRI",), labels=labels, file_ending=".nii.gz")
    return apply_settings(make_plan(fingerprint, dataset, recipe=recipe), settings)


@pytest.mark.parametrize("recipe", MEASURED)
def test_memory_grows_with_the_batch_and_the_precision(recipe):
    plan = plan_of(recipe)
    counts = count_values(plan)
    twice = apply_settings(plan, (f"sampling.batch_size={2 * plan.sampling.batch_size}",))
    one, two = (step_memory(each, counts=counts) for each in (plan, twice))
    assert two.maps_bytes == 2 * one.maps_bytes
    assert two.weights_bytes == one.weights_bytes
    assert step_memory(plan, counts=counts, width=32).total_bytes > one.total_bytes
    in_parts = apply_settings(twice, ("training.accumulation_steps=2",))
    assert step_memory(in_parts, counts=counts).maps_bytes == one.maps_bytes


def test_counts_equal_those_of_a_real_pass():
    plan = plan_of(
        "plain-unet",
        settings=("sampling.patch_size=[16,16,16]", "sampling.batch_size=2"),
    )
    network = build_network(plan.network, in_channels=1, num_classes=3, patch_size=(16, 16, 16)).train()
    values = []
    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda module, inputs, output: values.append(output.numel()))
    outputs = network(torch.zeros(1, 1, 16, 16, 16))
    counts = count_values(plan)
    assert counts.map_values == sum(values)
    assert counts.output_values == sum(output.numel() for output in outputs)
    assert counts.parameters == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("recipe", ["xlstm-unet", "residual-unet"])
def test_large_recomputed_maps_are_not_counted(recipe):
    plan = plan_of(recipe, settings=("sampling.batch_size=1",))
    counts = count_values(plan)
    z, y, x = plan.sampling.patch_size
    largest = plan.network.features[0] * z * y * x
    assert max(counts.spared_values) == largest
    assert sum(counts.spared_values) < counts.map_values / 2
    enough = -(-SMALLEST_BYTES // (2 * largest))

    def spared(batch_size, width=16):
        of_batch = apply_settings(plan, (f"sampling.batch_size={batch_size}",))
        memory = step_memory(of_batch, counts=counts, width=width)
        kept = memory.weights_bytes + memory.maps_bytes + memory.outputs_bytes + memory.workspace_bytes
        assert memory.total_bytes == kept - memory.spared_bytes
        return memory.spared_bytes

    number = counts.spared_values.count(largest)
    assert spared(enough - 1) == 0
    assert spared(enough) == number * 2 * enough * largest
    assert spared(enough, width=32) >= 2 * spared(enough)


def test_counting_draws_no_random_numbers():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    count_values(plan_of("plain-unet", settings=("sampling.patch_size=[16,16,16]",)))
    assert torch.equal(torch.rand(1), expected)


def test_optimizer_state_and_ema_weights_are_counted():
    counts = count_values(plan_of("plain-unet"))

    def weights(*settings):
        plan = plan_of("plain-unet", settings=settings)
        return step_memory(plan, counts=counts).weights_bytes / counts.parameters

    assert weights() == 6 + 4
    assert weights("training.ema_decay=0.99") == 6 + 4 + 4
    assert weights('training.optimizer={"kind": "adamw"}') == 6 + 8


def test_prediction_uses_the_precision_of_the_plan():
    counts = count_values(plan_of("plain-unet"))
    single = step_memory(plan_of("plain-unet", settings=("training.precision=float32",)), counts=counts)
    assert single == step_memory(plan_of("plain-unet"), counts=counts, width=32)
    assert step_memory(plan_of("plain-unet"), counts=counts) == step_memory(
        plan_of("plain-unet"), counts=counts, width=16
    )
    assert single.total_bytes > 1.4e9


def test_our_networks_were_measured():
    assert (
        {plan_of(recipe).network.kind for recipe in MEASURED}
        == set(MAP_BYTES)
        <= {plan_of(recipe).network.kind for recipe in RECIPES if not recipe.endswith(("-low", "-cascade"))}
    )


def test_scans_and_cells_are_those_of_a_real_pass(monkeypatch):
    found = []

    def record(name, function):
        def call(*arguments, **settings):
            found.append((name, tuple(arguments[0].shape)))
            return function(*arguments, **settings)

        return call

    monkeypatch.setattr(ss2d, "ss2d_scan", record("scan", ss2d.ss2d_scan))
    monkeypatch.setattr(vil_block, "mlstm", record("mlstm", vil_block.mlstm))
    small = {"msvm-unet": (32, 64), "xlstm-unet-2d": None}
    for recipe, patch in small.items():
        plan = plan_of(recipe)
        patch = patch or plan.sampling.patch_size
        sampling = plan.sampling.model_copy(update={"patch_size": patch})
        plan = plan.model_copy(update={"sampling": sampling})
        counts = count_values(plan)
        found.clear()
        network = build_network(
            plan.network, in_channels=plan.num_inputs, num_classes=3, patch_size=patch
        ).train()
        with torch.no_grad():
            network(torch.zeros(2, plan.num_inputs, *patch))
        assert found == [("scan", (2, *scan[:3])) for scan in counts.scans] + [
            ("mlstm", (2, *cell)) for cell in counts.cells
        ]
        assert found


def test_states_of_newer_kernels_are_added():
    # A scan of 56 x 56 pixels keeps a state of 32 channels for 8 pixels instead of 32, if 128 programs run.
    counts = Counts(0, 0, 0, scans=((32, 56, 56, 1),) * 3, cells=((4, 4096, 128), (4, 1024, 128)))
    kept_by_cells = 4 * 31 * (2 * 128**2 + 4 * 128)

    def states(batch_size, *settings, **options):
        plan = plan_of("plain-unet", settings=(f"sampling.batch_size={batch_size}", *settings))
        memory = step_memory(plan, counts=counts, **options)
        without = step_memory(plan, counts=replace(counts, scans=(), cells=()), **options)
        assert memory.total_bytes == without.total_bytes + memory.states_bytes
        return memory.states_bytes

    assert states(63) == 63 * kept_by_cells
    assert states(64) == 64 * (kept_by_cells + 3 * 4 * 4 * (392 - 98) * 32)
    assert states(128, "training.accumulation_steps=2") == states(64)
    assert states(64, width=32) == states(64, "training.precision=float16") == 0
