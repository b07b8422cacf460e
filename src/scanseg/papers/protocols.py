"""Plans of the papers' experiments: as published, with held-out cases, and at a small size."""

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
"""Of xLSTM-UNet as published: that of the code, or that of the text."""

FROZEN_EPOCHS = 10
"""Epochs in which MSVM-UNet's encoder rests, where it comes with ImageNet weights."""
_SLOW_PEERS = frozenset({"segresnet", "unetr", "swin-unetr"})
_QUICK_AXES = {2: (64, 64), 3: (32, 32, 64)}
_QUICK_BASELINES: dict[str, dict[str, object]] = {
    "segresnet": {"features": 8, "blocks_encoder": (1, 1, 1, 1)},
    "unetr": {"features": 4, "hidden_size": 24, "mlp_dim": 32, "num_heads": 2},
    "swin-unetr": {"features": 12, "depths": (2, 1, 1, 1), "window_size": 4},
}


@dataclass(frozen=True)
class ProtocolChoices:
    """What may be said of a protocol's plan."""

    protocol: Protocol
    variant: Variant = "enc"
    optimizer: Optimizer = "sgd"
    with_encoder: bool = False
    """The encoder of MSVM-UNet comes with ImageNet weights."""
    choose_best: bool = True
    """Soundly: validation cases choose the weights, since others are scored."""
    quick: bool = False
    settings: tuple[str, ...] = ()


def protocol_plan(
    experiment: Experiment, dataset: Path, choices: ProtocolChoices, *, context: RunContext
) -> Plan:
    """Plan an experiment of a paper.

    Args:
        experiment: The experiment.
        dataset: Folder of the raw data set; it is measured by its training cases.
        choices: Protocol and variant, and what the user changes last of all.
        context: Worker processes and progress.

    Raises:
        InputError: The data set is faulty.
        UsageError: A setting is invalid.
    """
    plan = make_plan(dataset, PlanRequest(recipe=experiment.recipe), context=context)
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
    """Change what the paper did otherwise than our recipe."""
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
    """Put a baseline into the place of a plan's network.

    All else stays, save that networks with attention, and SegResNet, do not learn by SGD: they get AdamW at 1e-4.

    Args:
        plan: The plan of the paper's own network.
        baseline: A kind of network, or the own one with another sequence block: `no-sequence`, `mamba`.

    Raises:
        UsageError: There is no such baseline, or it does not fit.
    """
    resting = plan.training.model_copy(update={"frozen_encoder_epochs": 0})
    plan = plan.model_copy(update={"training": resting})
    if baseline in ("no-sequence", "mamba"):
        block = "none" if baseline == "no-sequence" else baseline
        return apply_settings(plan, (f"network.sequence_block={block}",))
    other = replace_network(plan, baseline)
    if baseline in _SLOW_PEERS and isinstance(plan.training.optimizer, SGDSpec):
        training = plan.training.model_copy(update={"optimizer": AdamWSpec(lr=1e-4, weight_decay=1e-5)})
        other = other.model_copy(update={"training": training})
    return other


def quick_plan(plan: Plan) -> Plan:
    """Return a plan of the same steps at a size at which they take seconds on a CPU.

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
    """Return a plan whose network is small.

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
    """Return the baselines that were asked for, each once; `all` stands for all of them.

    Args:
        experiment: The experiment.
        baselines: Names.

    Raises:
        UsageError: The experiment has no such baseline.
    """
    unknown = sorted(set(baselines) - {*experiment.baselines, "all"})
    if unknown:
        raise UsageError(
            f"baselines {', '.join(unknown)} are unknown; choose of {', '.join(experiment.baselines)}, or all"
        )
    return experiment.baselines if "all" in baselines else tuple(dict.fromkeys(baselines))
