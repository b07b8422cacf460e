"""Train a network from a plan and a store."""

from scanseg.training.early_compilation import compiled_early, expect_compiling
from scanseg.training.folds import FoldChoice, choose_fold
from scanseg.training.initial_weights import check_encoder_weights
from scanseg.training.optimizers import build_optimizer
from scanseg.training.records import command_words
from scanseg.training.schedules import learning_rate
from scanseg.training.step_timing import StepTiming, time_step
from scanseg.training.trainer import TrainingResult, train
from scanseg.training.warm_up import Purpose, WarmUp, read_plans, warm_up

__all__ = [
    "FoldChoice",
    "Purpose",
    "StepTiming",
    "TrainingResult",
    "WarmUp",
    "build_optimizer",
    "check_encoder_weights",
    "choose_fold",
    "command_words",
    "compiled_early",
    "expect_compiling",
    "learning_rate",
    "read_plans",
    "time_step",
    "train",
    "warm_up",
]
