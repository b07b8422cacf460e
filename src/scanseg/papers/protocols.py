"""Plans of the papers' experiments: `published`, `held-out` and quick."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scanseg.errors import UsageError
from scanseg.papers.experiments import Experiment
from scanseg.planning import PlanRequest, make_plan, replace_network, replace_patch
from scanseg.runtime import RunContext
from scanseg.settings import apply_settings
from scanseg.specs import (
    AdamWSpec,
    MirrorTransform,
    MSVMUNetSpec,
    Plan,
    Protocol,
    SGDSpec,
    Variant,
    XLSTMUNetSpec,
)

Optimizer = Literal["sgd", "adamw"]
"""Optimizer of the published xLSTM-UNet: `sgd` of its code, or `adamw` of its text."""

FROZEN_EPOCHS = 10
"""Epochs with a frozen encoder of MSVM-UNet, if it has ImageNet weights."""
_ADAMW_BASELINES = frozenset({"segresnet", "unetr", "swin-unetr"})
_QUICK_AXES = {2: (64, 64), 3: (32, 32, 64)}
_QUICK_BASELINES: dict[str, dict[str, object]] = {
    "segresnet": {"features": 8, "blocks_encoder": (1, 1, 1, 1)},
    "unetr": {"features": 4, "hidden_size": 24, "mlp_dim": 32, "num_heads": 2},
    "swin-unetr": {"features": 12, "depths": (2, 1, 1, 1), "window_size": 4},
}


@dataclass(frozen=True)
class ProtocolChoices:
    """Choices for the plan of a protocol."""

    protocol: Protocol
    variant: Variant = "enc"
    optimizer: Optimizer = "sgd"
    with_encoder: bool = False
    """The encoder of MSVM-UNet has ImageNet weights."""
    choose_best: bool = True
    """With `held-out`: choose the best weights on validation cases, because other cases are scored."""
    quick: bool = False
    """Plan the same steps with a small network and small patches."""
    settings: tuple[str, ...] = ()
    """Changes to the plan, each `path.to.key=value`. They are applied last."""


def protocol_plan(
    experiment: Experiment, dataset: Path, choices: ProtocolChoices, *, context: RunContext
) -> Plan:
    """Plan an experiment of a paper.

    Args:
        experiment: The experiment.
        dataset: Folder of the raw data set. The fingerprint covers its training cases.
        choices: Protocol, variant and settings.
        context: Worker processes and progress.

    Raises:
        InputError: The data set is faulty.
        UsageError: A setting is invalid.
    """
    recipe = experiment.recipe
    if choices.protocol == "held-out" and experiment.held_out_recipe is not None:
        recipe = experiment.held_out_recipe
    plan = make_plan(dataset, PlanRequest(recipe=recipe, size="full"), context=context)
    if experiment.paper == "xlstm-unet":
        plan = apply_settings(plan, (f"network.variant={choices.variant}",))
    if experiment.patch_size is not None and not choices.quick:
        plan = replace_patch(plan, experiment.patch_size)
    if choices.protocol == "published":
        plan = _as_published(experiment, plan, choices)
    elif choices.choose_best:
        plan = apply_settings(plan, ("training.export=best",))
    if choices.with_encoder:
        plan = apply_settings(plan, (f"training.frozen_encoder_epochs={FROZEN_EPOCHS}",))
    if choices.quick:
        plan = quick_plan(plan)
    return apply_settings(plan, choices.settings)


def _as_published(experiment: Experiment, plan: Plan, choices: ProtocolChoices) -> Plan:
    """Apply the differences between the paper and our recipe."""
    if experiment.batch_size is not None:
        plan = apply_settings(plan, (f"sampling.batch_size={experiment.batch_size}",))
    if experiment.paper == "msvm-unet":
        mirrored = tuple(
            transform.model_copy(update={"axes": (0, 1)})
            if isinstance(transform, MirrorTransform)
            else transform
            for transform in plan.augmentation
        )
        return apply_settings(
            plan.model_copy(update={"augmentation": mirrored}),
            (
                "training.precision=float32",
                "training.optimizer.decay_all=true",
                'training.early_stop={"measure": "loss", "patience_epochs": 15}',
                "inference.slice_resampling=labels",
            ),
        )
    lr = dict(experiment.lr_of_variant).get(choices.variant, experiment.lr) or 0.01
    epochs = experiment.epochs or 1000
    optimizer: SGDSpec | AdamWSpec = SGDSpec(lr=lr, momentum=0.99, weight_decay=3e-5)
    if choices.optimizer == "adamw":
        optimizer = AdamWSpec(lr=lr, weight_decay=0.05, decay_all=True)
    elif experiment.data != "brats23":
        epochs *= 4
    changed = {"optimizer": optimizer, "epochs": epochs, "iterations_per_epoch": 250, "gradient_clip": 12.0}
    return plan.model_copy(update={"training": plan.training.model_copy(update=changed)})


def baseline_plan(plan: Plan, baseline: str) -> Plan:
    """Replace the network of a plan with a baseline.

    Everything else stays the same, except the optimizer: networks with attention, and SegResNet, do not learn with SGD
    and get AdamW with a learning rate of 1e-4.

    Args:
        plan: The plan of the paper's network.
        baseline: Kind of the network. `no-sequence` and `mamba` are the paper's network with another sequence block.

    Raises:
        UsageError: The baseline is unknown, or it does not fit.
    """
    unfrozen = plan.training.model_copy(update={"frozen_encoder_epochs": 0})
    plan = plan.model_copy(update={"training": unfrozen})
    if baseline in ("no-sequence", "mamba"):
        block = "none" if baseline == "no-sequence" else baseline
        return apply_settings(plan, (f"network.sequence_block={block}",))
    other = replace_network(plan, baseline)
    if baseline in _ADAMW_BASELINES and isinstance(plan.training.optimizer, SGDSpec):
        training = plan.training.model_copy(update={"optimizer": AdamWSpec(lr=1e-4, weight_decay=1e-5)})
        other = other.model_copy(update={"training": training})
    return other


def quick_plan(plan: Plan) -> Plan:
    """Return a small plan that trains in seconds on a CPU.

    Args:
        plan: The plan.
    """
    size = _QUICK_AXES[len(plan.sampling.patch_size)]
    settings = [
        *("training.epochs=2", "training.validate_every=1", "training.validation_batches=1"),
        "training.checkpoint_seconds=0",
    ]
    if plan.training.iterations_per_epoch is None:  # an epoch has every slice
        settings.append("sampling.batch_size=8")
    else:
        settings += ["sampling.batch_size=2", "training.iterations_per_epoch=2"]
    if plan.preprocessing.slice_size is None:
        plan = replace_patch(plan, size)
    else:
        sampling = plan.sampling.model_copy(update={"patch_size": size})
        preprocessing = plan.preprocessing.model_copy(update={"slice_size": size})
        plan = plan.model_copy(update={"sampling": sampling, "preprocessing": preprocessing})
    return quick_network(apply_settings(plan, settings))


def quick_network(plan: Plan) -> Plan:
    """Return a plan with a small network.

    Args:
        plan: The plan.
    """
    network = plan.network
    small: dict[str, object]
    if isinstance(network, MSVMUNetSpec):
        small = {"dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "decoder_depth": 1}
    elif network.kind in _QUICK_BASELINES:
        small = _QUICK_BASELINES[network.kind]
    else:
        num_stages = len(getattr(network, "features", ()))
        small = {"features": tuple(min(4 * 2**stage, 16) for stage in range(num_stages))}
        if isinstance(network, XLSTMUNetSpec):
            small |= {"num_blocks_encoder": 1, "num_blocks_decoder": 1}
    return plan.model_copy(update={"network": network.model_copy(update=small)})


def check_baselines(experiment: Experiment, baselines: Sequence[str]) -> tuple[str, ...]:
    """Return the requested baselines, each once.

    Args:
        experiment: The experiment.
        baselines: Names of baselines. `all`: all baselines of the experiment.

    Raises:
        UsageError: A baseline is unknown.
    """
    unknown = sorted(set(baselines) - {*experiment.baselines, "all"})
    if unknown:
        raise UsageError(
            f"baselines: expected names of {', '.join(experiment.baselines)}, or all, got {', '.join(unknown)}"
        )
    return experiment.baselines if "all" in baselines else tuple(dict.fromkeys(baselines))
