"""Losses against values worked out by hand."""

import math
from functools import partial

import pytest
import torch

from scanseg.ops import segmentation_sums
from scanseg.ops._support.triton import INTERPRETED
from scanseg.ops.segmentation_sums import dice_sums
from scanseg.specs import DatasetSpec, LossSpec
from scanseg.training import losses
from scanseg.training.losses import encode_targets, segmentation_loss

ORGANS = DatasetSpec(
    name="organs", channel_names=("MRI",), labels={"background": 0, "a": 1, "b": 2}, file_ending=".png"
)
REGIONS = DatasetSpec(
    name="tumour",
    channel_names=("MRI",),
    labels={"background": 0, "whole": (1, 2), "core": 2},
    regions_class_order=(1, 2),
    file_ending=".png",
)
PARTLY = DatasetSpec(
    name="partly", channel_names=("MRI",), labels={"background": 0, "a": 1, "ignore": 2}, file_ending=".png"
)
LABELS = torch.tensor([[[0, 1], [2, 2]]])


def sure(label_map, num_outputs):
    """Logits that say the labels with certainty."""
    return 200 * torch.nn.functional.one_hot(label_map, num_outputs).movedim(-1, 1).float() - 100


def test_targets_are_a_mask_for_each_class_or_region():
    assert encode_targets(LABELS, dataset=ORGANS).masks.tolist() == [
        [[[1, 0], [0, 0]], [[0, 1], [0, 0]], [[0, 0], [1, 1]]]
    ]
    assert encode_targets(LABELS, dataset=REGIONS).masks.tolist() == [[[[0, 1], [1, 1]], [[0, 0], [1, 1]]]]


@pytest.mark.parametrize("spec", [LossSpec(), LossSpec(dice_background=True, dice_squared=True)])
def test_a_certain_and_right_output_costs_nothing(spec):
    loss = segmentation_loss([sure(LABELS, 3)], LABELS, spec=spec, dataset=ORGANS)

    assert loss.item() == pytest.approx(0, abs=1e-5)


def dice_alone(logits, label_map, **options):
    spec = LossSpec(cross_entropy_weight=0, **options)
    return segmentation_loss([logits], label_map, spec=spec, dataset=PARTLY).item()


def test_dice_by_hand():
    logits, label_map = torch.zeros(1, 2, 2, 2), torch.tensor([[[0, 0], [1, 1]]])

    # overlap 1, sizes 2 and 2: 2 * 1 / 4; squares of the prediction: 4 * 0.25 = 1
    assert dice_alone(logits, label_map, dice_smooth=0.0) == pytest.approx(1 - 2 / 4)
    assert dice_alone(logits, label_map, dice_smooth=0.0, dice_squared=True) == pytest.approx(1 - 2 / 3)


def test_dice_over_the_batch_sums_before_it_divides():
    label_map = torch.tensor([[[1, 1]], [[0, 0]]])
    logits = sure(torch.ones_like(label_map), 2)

    assert dice_alone(logits, label_map, dice_smooth=1e-9) == pytest.approx(1 - 4 / 6)
    by_patch = dice_alone(logits, label_map, dice_smooth=1e-9, dice_over_batch=False)
    assert by_patch == pytest.approx(1 - (1 + 0) / 2)


def test_uncertain_cross_entropy_by_hand():
    spec = LossSpec(dice_weight=0, cross_entropy_weight=2)
    classes = segmentation_loss([torch.zeros(1, 3, 2, 2)], LABELS, spec=spec, dataset=ORGANS)
    regions = segmentation_loss([torch.zeros(1, 2, 2, 2)], LABELS, spec=spec, dataset=REGIONS)

    assert classes.item() == pytest.approx(2 * math.log(3))
    assert regions.item() == pytest.approx(2 * math.log(2))


def test_weighted_labels_by_hand():
    """Logits that give each class of three the same probability but for one voxel of label b."""
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 2, 1, 1] = math.log(2)  # probabilities 1/4, 1/4, 1/2
    spec = LossSpec(dice_weight=0, label_weights={"b": 3.0, "background": 0.0})

    loss = segmentation_loss([logits], LABELS, spec=spec, dataset=ORGANS)

    # Voxels: background (weight 0), a (1), b (3), b (3) with losses ln 3, ln 3, ln 3, ln 2.
    assert loss.item() == pytest.approx((math.log(3) + 3 * math.log(3) + 3 * math.log(2)) / 7)


def test_weighted_regions_by_hand():
    logits = torch.zeros(1, 2, 2, 2)
    logits[:, 1] = -100  # core: nowhere, though it is in two of four voxels
    spec = LossSpec(dice_weight=0, label_weights={"core": 3.0})

    loss = segmentation_loss([logits], LABELS, spec=spec, dataset=REGIONS)

    assert loss.item() == pytest.approx((math.log(2) + 3 * 100 / 2) / 4)


def test_weights_leave_ignored_voxels_out():
    logits = torch.zeros(1, 2, 2, 2)
    spec = LossSpec(dice_weight=0, label_weights={"a": 5.0})

    assert segmentation_loss([logits], LABELS, spec=spec, dataset=PARTLY).item() == pytest.approx(math.log(2))


def test_losses_of_parts_are_that_of_the_whole_batch():
    """What each of two processes computes, with sums over both of them."""
    generator = torch.Generator().manual_seed(0)
    label_map = torch.randint(0, 3, (4, 6, 6), generator=generator)
    logits = torch.randn(4, 2, 6, 6, generator=generator)
    spec = LossSpec(label_weights={"a": 2.0})
    whole = segmentation_loss([logits], label_map, spec=spec, dataset=PARTLY)
    heard: list[list[torch.Tensor]] = [[], []]
    halves = [(logits[:2], label_map[:2]), (logits[2:], label_map[2:])]

    for number, (part, labels) in enumerate(halves):
        note = heard[number].append
        segmentation_loss([part], labels, spec=spec, dataset=PARTLY, total=lambda x, note=note: note(x) or x)
    sums = [first + second for first, second in zip(*heard, strict=True)]
    for part, labels in halves:
        left = iter(sums)
        loss = segmentation_loss(
            [part], labels, spec=spec, dataset=PARTLY, total=lambda x, left=left: next(left)
        )
        assert loss.item() == pytest.approx(whole.item())


def test_ignored_voxels_change_nothing():
    label_map = torch.tensor([[[0, 1], [2, 2]]])
    logits = torch.tensor([[[[1.0, -1.0], [0.3, 0.2]], [[0.0, 0.5], [0.1, 0.7]]]], requires_grad=True)

    segmentation_loss([logits], label_map, spec=LossSpec(), dataset=PARTLY).backward()

    assert (logits.grad[..., 1, :] == 0).all()
    assert (logits.grad[..., 0, :] != 0).all()


def test_deep_supervision_halves_the_weight_and_drops_the_coarsest():
    label_map = torch.zeros(1, 8, 8, dtype=torch.uint8)
    label_map[:, :4] = 1
    spec = LossSpec(dice_weight=0)
    right = [sure(label_map[:, ::step, ::step].long(), 2) for step in (1, 2, 4)]
    doubtful = [torch.zeros_like(logits) for logits in right]
    two_labels = DatasetSpec(
        name="two", channel_names=("MRI",), labels={"background": 0, "a": 1}, file_ending=".png"
    )

    def loss(*outputs):
        return segmentation_loss(outputs, label_map, spec=spec, dataset=two_labels).item()

    assert loss(*right) == pytest.approx(0)
    assert loss(doubtful[0], *right[1:]) == pytest.approx(math.log(2) * 2 / 3)
    assert loss(right[0], doubtful[1], right[2]) == pytest.approx(math.log(2) / 3)
    assert loss(*right[:2], doubtful[2]) == pytest.approx(0)


def test_on_a_cpu_the_loss_is_bit_by_bit_that_of_whole_maps():
    """So that a training on a CPU is what it was before sums were an operator."""
    generator = torch.Generator().manual_seed(0)
    label_map = torch.randint(0, 3, (2, 13, 17), generator=generator).to(torch.uint8)
    leaves = [torch.randn(2, 3, 13, 17, generator=generator).requires_grad_()]
    leaves.append(leaves[0].detach().clone().requires_grad_())
    spec = LossSpec(dice_weight=0.7)
    targets = encode_targets(label_map, dataset=ORGANS)

    loss = segmentation_loss([leaves[0]], label_map, spec=spec, dataset=ORGANS)
    overlap, predicted, actual = dice_sums(
        leaves[1].softmax(1)[:, 1:], targets.masks[:, 1:], valid=None, squared=False, over_batch=True
    )
    smooth = spec.dice_smooth
    dice = 1 - ((2 * overlap + smooth) / (predicted + actual + smooth)).mean()
    of_voxels = torch.nn.functional.cross_entropy(leaves[1], label_map.long(), reduction="none")
    by_maps = 0.7 * dice + of_voxels.mean()
    for value in (loss, by_maps):
        value.backward()

    assert torch.equal(loss, by_maps)
    assert torch.equal(leaves[0].grad, leaves[1].grad)


@pytest.mark.skipif(not INTERPRETED, reason="on a GPU the kernels are tested with the operator")
@pytest.mark.parametrize(
    "spec",
    [
        LossSpec(),
        LossSpec(dice_background=True, dice_squared=True, dice_over_batch=False, dice_weight=0.3),
        LossSpec(label_weights={"a": 3.0, "core": 0.5}, dice_smooth=1.0),
        LossSpec(dice_weight=0),
        LossSpec(cross_entropy_weight=0),
    ],
    ids=["default", "squares", "weights", "no Dice", "no cross-entropy"],
)
@pytest.mark.parametrize("dataset", [ORGANS, REGIONS, PARTLY], ids=lambda dataset: dataset.name)
def test_the_kernels_of_a_gpu_give_the_same_loss(monkeypatch, spec, dataset):
    """All options, deep supervision, channels-last logits, by Triton's interpreter."""
    generator = torch.Generator().manual_seed(0)
    label_map = torch.randint(0, 3, (2, 8, 12), generator=generator).to(torch.uint8)
    num_outputs = len(dataset.foreground) + (not dataset.has_regions)
    outputs = [torch.randn(2, num_outputs, 8 // step, 12 // step, generator=generator) for step in (1, 2, 4)]
    results = []
    for backend in ("reference", "triton"):
        monkeypatch.setattr(losses, "segmentation_sums", partial(segmentation_sums, backend=backend))
        leaves = [x.clone(memory_format=torch.channels_last).requires_grad_() for x in outputs]
        loss = segmentation_loss(leaves, label_map, spec=spec, dataset=dataset)
        loss.backward()
        results.append([loss, *(leaf.grad for leaf in leaves[:2])])
        assert leaves[2].grad is None

    for expected, result in zip(*results, strict=True):
        torch.testing.assert_close(result, expected)
