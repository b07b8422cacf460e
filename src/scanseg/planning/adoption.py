"""The plan of a trained model for another data set, so that its weights fit."""

from scanseg.errors import InputError
from scanseg.messages import counted
from scanseg.planning.augmentations import mirror_axes
from scanseg.specs import DatasetSpec, MirrorTransform, Plan


def adopt_plan(
    plan: Plan, dataset: DatasetSpec, *, num_axes: int, source: str, dataset_path: str | None
) -> Plan:
    """Return a model's plan with another data set's labels.

    Everything else is the model's: preprocessing with its normalisation, patches, network, training. Mirroring follows
    the new labels; weights of labels are left out.

    Args:
        plan: The model's plan.
        dataset: The other data set.
        num_axes: Spatial axes of its images.
        source: Where the plan comes from, for messages.
        dataset_path: Where the raw data set lies, to be noted in the plan.

    Raises:
        InputError: The images have other channels or axes than the model's.
    """
    faults = []
    if dataset.num_channels != plan.dataset.num_channels:
        faults.append(
            f"{counted(dataset.num_channels, 'channel')} ({', '.join(dataset.channel_names)}), the model "
            f"{plan.dataset.num_channels} ({', '.join(plan.dataset.channel_names)})"
        )
    if num_axes != plan.num_axes:
        faults.append(f"images of {num_axes} axes, the model {plan.num_axes}")
    if faults:
        raise InputError(
            f"{dataset.name} cannot take over the plan of {source}: it has {'; '.join(faults)}. Plan it anew."
        )
    num_patch_axes = len(plan.sampling.patch_size)
    flips = mirror_axes(dataset, axis_order=plan.preprocessing.axis_order, num_patch_axes=num_patch_axes)
    augmentation = tuple(
        transform.model_copy(update={"axes": flips}) if isinstance(transform, MirrorTransform) else transform
        for transform in plan.augmentation
    )
    loss = plan.training.loss.model_copy(update={"label_weights": {}})
    return plan.model_copy(
        update={
            "dataset": dataset,
            "dataset_path": dataset_path,
            "augmentation": augmentation,
            "sampling": plan.sampling.model_copy(update={"label_weights": {}}),
            "training": plan.training.model_copy(update={"loss": loss}),
            "inference": plan.inference.model_copy(update={"mirror_axes": flips}),
        }
    )
