"""From a fingerprint to a plan. The rules are those published with nnU-Net (Isensee et al. 2021, supplement)."""

from scanseg.planning.first_stage import keep_first_stage
from scanseg.planning.memory import step_memory
from scanseg.planning.network_choice import replace_network, replace_patch
from scanseg.planning.preparation import DEFAULT_RECIPE, known_splits, make_plan, plan_of, store_of
from scanseg.planning.recipes import RECIPES

__all__ = [
    "DEFAULT_RECIPE",
    "RECIPES",
    "keep_first_stage",
    "known_splits",
    "make_plan",
    "plan_of",
    "replace_network",
    "replace_patch",
    "step_memory",
    "store_of",
]
