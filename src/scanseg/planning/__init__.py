"""Planning: from the fingerprint of a data set to a plan.

The rules are those published with nnU-Net (Isensee et al. 2021, supplement).
"""

from scanseg.planning.augmentations import nnunet_augmentation
from scanseg.planning.decisions import describe_dataset, describe_decisions
from scanseg.planning.first_stage import check_first_stage, copy_first_stage, first_stage_stamps
from scanseg.planning.memory import step_memory
from scanseg.planning.network_choice import replace_network, replace_patch
from scanseg.planning.preparation import (
    PlanRequest,
    Prepared,
    TrainingSource,
    find_known_splits,
    find_plan,
    make_plan,
    open_raw,
    prepare_store,
)
from scanseg.planning.recipes import RECIPES

__all__ = [
    "RECIPES",
    "PlanRequest",
    "Prepared",
    "TrainingSource",
    "check_first_stage",
    "copy_first_stage",
    "describe_dataset",
    "describe_decisions",
    "find_known_splits",
    "find_plan",
    "first_stage_stamps",
    "make_plan",
    "nnunet_augmentation",
    "open_raw",
    "prepare_store",
    "replace_network",
    "replace_patch",
    "step_memory",
]
