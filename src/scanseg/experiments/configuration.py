"""Configurations of a cross-validation: plan, store and folds."""

from dataclasses import dataclass
from pathlib import Path

from scanseg.errors import InputError
from scanseg.experiments.job import TrainingJob
from scanseg.experiments.postprocessing import PredictedCase
from scanseg.models import ModelFolder
from scanseg.planning import Prepared
from scanseg.specs import FoldOutcome, RunRecord


@dataclass(frozen=True, eq=False)
class Configuration:
    """A plan whose folds are trained, such as that of a recipe."""

    name: str
    folder: Path
    prepared: Prepared
    initial_weights: Path | None = None
    """Model folder of the initial weights of all folds. `None`: random weights."""

    @property
    def folds(self) -> range:
        """Numbers of the folds."""
        return range(len(self.prepared.store.index.splits.folds))

    def job(self, fold: int) -> TrainingJob:
        """Return the training of a fold.

        Args:
            fold: Number of the fold.
        """
        return TrainingJob(
            name=f"{self.name} fold {fold}",
            prepared=self.prepared,
            folder=self.folder / f"fold_{fold}",
            fold=fold,
            initial_weights=self.initial_weights,
            keep_predictions=True,
        )

    def model(self, fold: int) -> ModelFolder:
        """Open the model folder of a trained fold.

        Args:
            fold: Number of the fold.
        """
        return ModelFolder.open(self.job(fold).folder)

    def validation_cases(self, fold: int) -> tuple[str, ...]:
        """Return the validation cases of a trained fold.

        Args:
            fold: Number of the fold.

        Raises:
            InputError: The run record is missing.
        """
        return _record_of(self.model(fold)).validation_cases

    def predicted(self) -> list[PredictedCase]:
        """Return the validation cases of all folds with their label maps."""
        return [
            PredictedCase(case, self.model(fold).prediction_path(case))
            for fold in self.folds
            for case in self.validation_cases(fold)
        ]

    def fold_outcomes(self, crossval: Path) -> list[FoldOutcome]:
        """Return the results of all folds.

        Args:
            crossval: Folder of the cross-validation.
        """
        outcomes = []
        for fold in self.folds:
            folder = self.model(fold)
            record = _record_of(folder)
            outcomes.append(
                FoldOutcome(
                    fold=fold,
                    model=folder.path.relative_to(crossval).as_posix(),
                    epochs_done=record.epochs_done,
                    seconds=record.training_seconds,
                    mean_dice=folder.scores.read_validation().summary.mean_over_labels.dice,
                )
            )
        return outcomes


def _record_of(folder: ModelFolder) -> RunRecord:
    """Read the run record of a training.

    Raises:
        InputError: The file is missing.
    """
    record = folder.read_run()
    if record is None:
        raise InputError(
            f"{folder.path}: the run record is missing. Delete the folder and train the fold again with --resume."
        )
    return record
