"""Trainer for nnU-Net 2.8 with the settings of our plans.

nnU-Net finds it by its name in the folder of the variable `nnUNet_extTrainer`.
"""

import os
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from scanseg.specs import TrainingSpec
from scanseg.training import build_optimizer, learning_rate


class nnUNetTrainerScanseg(nnUNetTrainer):  # noqa: N801 (nnU-Net's form of names)
    """Train networks of scanseg by nnU-Net.

    Data loading, augmentation, loss, gradient clipping (12), mixed precision, checkpoints and prediction are nnU-Net's.
    The plan decides the number of epochs and steps, optimizer, schedule, deep supervision, and the fraction of patches
    on foreground. `torch.compile` is off unless `nnUNet_compile` asks for it, because the operators of the networks are
    fused kernels already.
    """

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 (the signature of nnU-Net)
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        settings = self.configuration_manager.configuration.get("scanseg")
        if settings is None:
            raise ValueError(
                f"plans {self.plans_manager.plans_name}: configuration {configuration} has no settings of scanseg. "
                "Write the plans by scanseg export nnunet."
            )
        self.spec = TrainingSpec.model_validate(settings["training"])
        self.num_epochs = self.spec.epochs
        if self.spec.iterations_per_epoch is not None:
            self.num_iterations_per_epoch = self.spec.iterations_per_epoch
        self.num_val_iterations_per_epoch = self.spec.validation_batches
        self.initial_lr = self.spec.optimizer.lr
        self.weight_decay = self.spec.optimizer.weight_decay
        self.oversample_foreground_percent = settings["foreground_fraction"]
        self.enable_deep_supervision = settings["deep_supervision"]

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """Return the plan's optimizer, and a schedule with one step per epoch."""
        optimizer = build_optimizer(self.network, self.spec.optimizer)
        return optimizer, _EpochSchedule(optimizer, self.spec)

    def _do_i_compile(self) -> bool:
        return "nnUNet_compile" in os.environ and super()._do_i_compile()


class _EpochSchedule(torch.optim.lr_scheduler.LRScheduler):
    """Learning rate of the plan at the start of each epoch."""

    def __init__(self, optimizer: torch.optim.Optimizer, spec: TrainingSpec) -> None:
        self.spec = spec
        super().__init__(optimizer)

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the learning rate of each group of parameters."""
        progress = min(1.0, self.last_epoch / self.spec.epochs)
        lr = learning_rate(self.spec.schedule, lr=self.spec.optimizer.lr, progress=progress)
        return [lr for _ in self.optimizer.param_groups]

    def step(self, epoch: int | None = None) -> None:
        """Set the learning rate of an epoch, as nnU-Net calls it."""
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = lr
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]
