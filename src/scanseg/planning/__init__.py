"""From a fingerprint to a plan. The rules are those published with nnU-Net (Isensee et al. 2021, supplement)."""

from scanseg.planning.adoption import adopt_plan
from scanseg.planning.network_choice import replace_network, replace_patch
from scanseg.planning.recipes import RECIPES, Recipe, make_plan

__all__ = ["RECIPES", "Recipe", "adopt_plan", "make_plan", "replace_network", "replace_patch"]
