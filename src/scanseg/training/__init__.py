"""From a plan and a store to a trained model."""

from scanseg.training.folds import FoldChoice, choose_fold
from scanseg.training.progress_tracker import mean_dice
from scanseg.training.trainer import TrainingResult, train
from scanseg.training.validation import REPORT

__all__ = [
    "REPORT",
    "FoldChoice",
    "TrainingResult",
    "choose_fold",
    "mean_dice",
    "train",
]
