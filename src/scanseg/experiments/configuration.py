"""One way to plan, in a cross-validation, and what its folds have left."""

from dataclasses import dataclass
from pathlib import Path

from scanseg.errors import InputError
from scanseg.experiments.postprocessing import PredictedCase
from scanseg.models import ModelFolder
from scanseg.preprocessing import Store
from scanseg.specs import FoldOutcome, Plan, Report, RunRecord
from scanseg.training import REPORT

PLAN = "plan.json"


@dataclass(frozen=True, eq=False)
class Configuration:
    """One way to plan, and where its folds are trained."""

    name: str
    folder: Path
    plan: Plan
    store: Store

    @property
    def folds(self) -> range:
        """Numbers of the folds."""
        return range(len(self.store.index.splits.folds))

    def model(self, fold: int) -> Path:
        """Return the model folder of a fold."""
        return self.folder / f"fold_{fold}"

    def validation_cases(self, fold: int) -> tuple[str, ...]:
        """Return the cases that a trained fold has not learnt from.

        Raises:
            InputError: The record of its training is gone.
        """
        return _record_of(ModelFolder.open(self.model(fold))).validation_cases

    def predicted(self) -> list[PredictedCase]:
        """Return the validation cases of all folds with their label maps."""
        return [
            PredictedCase(case, ModelFolder.open(self.model(fold)).prediction_path(case))
            for fold in self.folds
            for case in self.validation_cases(fold)
        ]

    def fold_outcomes(self, study: Path) -> list[FoldOutcome]:
        """Return what became of each fold.

        Args:
            study: The study's folder.
        """
        outcomes = []
        for fold in self.folds:
            folder = ModelFolder.open(self.model(fold))
            record, report = _record_of(folder), Report.read(folder.path / REPORT)
            outcomes.append(
                FoldOutcome(
                    fold=fold,
                    model=folder.path.relative_to(study).as_posix(),
                    epochs_done=record.epochs_done,
                    seconds=record.training_seconds,
                    mean_dice=report.summary.mean_over_labels.dice,
                )
            )
        return outcomes


def _record_of(folder: ModelFolder) -> RunRecord:
    """Return the record of a training.

    Raises:
        InputError: It is gone.
    """
    record = folder.read_run()
    if record is None:
        raise InputError(
            f"{folder.path}: its run.json is gone; delete the folder, and train the fold again by --resume."
        )
    return record
