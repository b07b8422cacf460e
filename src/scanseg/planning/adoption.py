"""Plan of a trained model, adapted to another data set for fine-tuning."""

from scanseg.errors import InputError
from scanseg.messages import counted
from scanseg.planning.augmentations import mirror_axes
from scanseg.planning.validated import validated_plan
from scanseg.specs import DatasetSpec, MirrorTransform, Plan


def adopt_plan(
    plan: Plan, dataset: DatasetSpec, *, num_axes: int, source: str, dataset_path: str | None
) -> Plan:
    """Return a model's plan with the labels of another data set.

    Preprocessing (with its normalization), patches, network and training stay. Mirror axes follow the new labels. If
    the model's axes were chosen by its data, no others are added. Label weights are removed.

    Args:
        plan: Plan of the model.
        dataset: The other data set.
        num_axes: Number of spatial axes of its images.
        source: Model folder of the plan, for messages.
        dataset_path: Folder of the raw data set, which the plan records.

    Raises:
        InputError: The images have other channels or axes than those of the model, or the labels contradict the plan.
    """
    faults = []
    if dataset.num_channels != plan.dataset.num_channels:
        faults.append(
            f"expected {counted(plan.dataset.num_channels, 'channel')} ({', '.join(plan.dataset.channel_names)}), got "
            f"{dataset.num_channels} ({', '.join(dataset.channel_names)})"
        )
    if num_axes != plan.num_axes:
        faults.append(f"expected images of {plan.num_axes} axes, got {num_axes}")
    if faults:
        raise InputError(
            f"{dataset.name} does not fit the plan of {source}: {', and '.join(faults)}. Make a new plan for it."
        )
    num_patch_axes = len(plan.sampling.patch_size)
    flips = mirror_axes(
        dataset,
        axis_order=plan.preprocessing.axis_order,
        num_patch_axes=num_patch_axes,
        orientation=plan.preprocessing.orientation,
    )
    if plan.mirror_likeness is not None:
        flips = tuple(axis for axis in flips if axis in plan.inference.mirror_axes)
    augmentation = tuple(
        transform.model_copy(update={"axes": flips}) if isinstance(transform, MirrorTransform) else transform
        for transform in plan.augmentation
    )
    loss = plan.training.loss.model_copy(update={"label_weights": {}})
    adopted = plan.model_copy(
        update={
            "dataset": dataset,
            "dataset_path": dataset_path,
            "augmentation": augmentation,
            "sampling": plan.sampling.model_copy(update={"label_weights": {}}),
            "mirror_likeness": None,
            "training": plan.training.model_copy(
                update={"loss": loss, "mirror_validation": plan.training.mirror_validation and bool(flips)}
            ),
            "inference": plan.inference.model_copy(
                update={"mirror_axes": flips, "mirror": plan.inference.mirror and bool(flips)}
            ),
        }
    )
    return validated_plan(adopted.model_dump(), purpose=f"{dataset.name} with the plan of {source}")
