"""Plans for colour pictures: endoscopy, skin, stained tissue, microscopy.

The fast recipes use them. See docs/decisions/0040-recipes-for-pictures.md.
"""

import math
from dataclasses import replace

from scanseg.planning.augmentations import picture_augmentation
from scanseg.planning.stages import Stage
from scanseg.planning.topology import choose_topology
from scanseg.specs import DatasetSpec, Fingerprint, Plan, PlanSize, ZScoreNormalization

_INSTANCE_LABELS = frozenset({"interior", "boundary"})
"""Labels of data sets of instances, as `scanseg data convert` writes them."""
_INSTANCE_PATCH = 256
"""Longest axis of a patch in pixels for instances. They are small, and many patches fit into one picture."""
_BATCH_PIXELS = 2**19
"""Pixels of a batch. More steps of small batches train better in minutes than few of large ones."""
_BATCH_SIZES = (4, 16)
"""Smallest and largest batch."""


def has_pictures(dataset: DatasetSpec, fingerprint: Fingerprint) -> bool:
    """Return whether a data set has colour pictures.

    Args:
        dataset: Data set with the names of channels.
        fingerprint: Fingerprint of the data set.
    """
    return fingerprint.num_axes == 2 and dataset.has_colour_pictures


def has_instances(dataset: DatasetSpec) -> bool:
    """Return whether the labels are interior and boundary of instances.

    Args:
        dataset: Data set with the names of labels.
    """
    return set(dataset.foreground) == _INSTANCE_LABELS


def picture_stage(stage: Stage, dataset: DatasetSpec) -> Stage:
    """Return the patch and the batch for pictures.

    Patches of instances have at most 256 pixels along an axis. Others stay as planned, so small pictures are whole
    patches. nnU-Net's bound on the batch, a twentieth of all pixels, is left out.

    Args:
        stage: Grid and patch by nnU-Net's rules.
        dataset: Data set with the names of labels.
    """
    topology = stage.patch.topology
    if has_instances(dataset):
        shape = [min(_INSTANCE_PATCH, size) for size in topology.patch_size]
        topology = choose_topology(stage.grid.spacing[1:], shape)
    features = stage.patch.features
    deepest = features[-1:] * (len(topology.strides) - len(features))
    lowest, highest = _BATCH_SIZES
    batch_size = max(lowest, min(highest, _BATCH_PIXELS // math.prod(topology.patch_size)))
    patch = replace(
        stage.patch,
        topology=topology,
        features=(*features[: len(topology.strides)], *deepest),
        batch_size=batch_size,
    )
    return Stage(stage.grid, patch)


def plan_pictures(plan: Plan, *, size: PlanSize) -> Plan:
    """Return a plan with normalization, augmentation and mirroring for pictures.

    Each channel of each picture is normalized by its own mean and standard deviation, because exposure differs between
    pictures. Validation and prediction average over flips, except for small plans, which run on a CPU.

    Args:
        plan: Plan of a fast recipe.
        size: Size of the plan.
    """
    flips = plan.inference.mirror_axes
    averages = bool(flips) and size != "small"
    return plan.model_copy(
        update={
            "preprocessing": plan.preprocessing.model_copy(
                update={"normalizations": (ZScoreNormalization(),) * plan.dataset.num_channels}
            ),
            "augmentation": picture_augmentation(plan.sampling.patch_size, mirror_axes=flips),
            "training": plan.training.model_copy(update={"mirror_validation": averages}),
            "inference": plan.inference.model_copy(update={"mirror": averages}),
        }
    )
