"""Cases of a training in their storage."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from scanseg.batches import (
    TRAINING_STREAM,
    Batch,
    BatchShard,
    DiskCases,
    TrainingCases,
    iterations_per_pass,
    make_batches,
    predicted_labels_of,
)
from scanseg.preprocessing import Store
from scanseg.runtime import RunContext
from scanseg.specs import Fold, Plan
from scanseg.training.case_storage import CaseStorage, load_cases


@dataclass(frozen=True, eq=False)
class LoadedCases:
    """Training and validation cases of a fold."""

    plan: Plan
    train: TrainingCases
    validation: TrainingCases | None
    """`None`: the fold has no validation cases."""

    @classmethod
    def load(
        cls, plan: Plan, store: Store, fold: Fold, storage: CaseStorage, *, context: RunContext
    ) -> "LoadedCases":
        """Load the cases.

        Args:
            plan: Plan of the training.
            store: Store of the cases.
            fold: Names of the cases.
            storage: Storage of the cases.
            context: Device, worker processes and progress.
        """

        def load(cases: Sequence[str]) -> TrainingCases:
            return load_cases(store, cases, storage, seed=plan.training.seed, context=context)

        return cls(plan, load(fold.train), load(fold.validation) if fold.validation else None)

    @property
    def iterations_per_epoch(self) -> int:
        """Steps of an epoch: as planned, or a pass over the cases."""
        return self.plan.training.iterations_per_epoch or iterations_per_pass(self.train, self.plan.sampling)

    def make_batches(
        self, iterations: Sequence[int], *, device: torch.device, shard: BatchShard
    ) -> Sequence[Batch]:
        """Make the training batches of some iterations.

        Args:
            iterations: Numbers of the iterations.
            device: Device of the batches.
            shard: Part of each batch for this process.
        """
        return make_batches(
            self.train,
            self.plan.sampling,
            transforms=self.plan.augmentation,
            seed=self.plan.training.seed,
            stream=TRAINING_STREAM,
            iterations=iterations,
            device=device,
            shard=shard,
            predicted=predicted_labels_of(self.plan),
        )

    def close(self) -> None:
        """Stop the worker processes."""
        for cases in (self.train, self.validation):
            if isinstance(cases, DiskCases):
                cases.close()
