"""The experiments of both papers: data, recipes, rules and published results."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Literal

from scanseg.errors import UsageError
from scanseg.papers.scoring import Scoring
from scanseg.specs import Measure, Paper, PublishedResult, PublishedResults, Variant

BASELINES = ("plain-unet", "residual-unet", "dynunet", "segresnet", "unetr", "swin-unetr")
"""Baselines of both papers."""
_SEQUENCE_BASELINES: dict[Paper, tuple[str, ...]] = {
    "msvm-unet": ("no-sequence",),
    "xlstm-unet": ("no-sequence", "mamba"),
}
"""More baselines: the paper's network with another sequence block or without one."""


@dataclass(frozen=True)
class Experiment:
    """One experiment of a paper, or its protocol on other data."""

    paper: Paper
    data: str
    num_axes: Literal[2, 3]
    recipe: str
    measures: tuple[Measure, ...]
    published: Scoring
    """Scoring of the paper."""
    held_out: Scoring
    """Scoring of the protocol `held-out`."""
    held_out_recipe: str | None = None
    """Recipe of the protocol `held-out`. `None`: the same as that of `published`."""
    patch_size: tuple[int, ...] | None = None
    """Published patch size in voxels. `None`: from the recipe."""
    batch_size: int | None = None
    """Published batch size. `None`: from the recipe."""
    lr: float | None = None
    """Published learning rate. `None`: 0.01."""
    lr_of_variant: tuple[tuple[Variant, float], ...] = ()
    """Published learning rates of variants of the network."""
    epochs: int | None = None
    """Published number of epochs. `None`: 1000."""

    @property
    def baselines(self) -> tuple[str, ...]:
        """Names of all available baselines."""
        return (*_SEQUENCE_BASELINES[self.paper], *BASELINES)

    @property
    def name(self) -> str:
        """Name of the experiment for messages."""
        return f"{self.paper} on {self.data}, {self.num_axes}D"


_HELD_OUT = Scoring("skip")
_PICTURES = Scoring("skip", "voxels")
"""Distances in voxels, because pictures have no spacing."""
_PUBLISHED_INSTANCES = replace(_PICTURES, instances="components")
_INSTANCES = replace(_PICTURES, instances="separated")
_MSVM = Experiment(
    paper="msvm-unet",
    data="",
    num_axes=2,
    recipe="msvm-unet",
    measures=("dice", "dice_of_cases", "hd95"),
    published=Scoring("transunet", "voxels"),
    held_out=_HELD_OUT,
    batch_size=32,
    lr=5e-4,
    epochs=300,
)
_ABDOMEN = Scoring("umamba", tolerance_preset="abdomen")
_HELD_OUT_ABDOMEN = Scoring("skip", tolerance_preset="abdomen")
_XLSTM_2D = Experiment(
    paper="xlstm-unet",
    data="",
    num_axes=2,
    recipe="xlstm-unet-2d",
    measures=("dice", "dice_of_cases", "nsd"),
    published=_HELD_OUT,
    held_out=_HELD_OUT,
    epochs=1000,
)
_XLSTM_3D = replace(_XLSTM_2D, num_axes=3, recipe="xlstm-unet")
_CELLS = replace(
    _XLSTM_2D,
    measures=("f1", "dice"),
    published=_PUBLISHED_INSTANCES,
    held_out=_INSTANCES,
    lr_of_variant=(("bot", 0.007), ("enc", 0.0015)),
)

EXPERIMENTS: tuple[Experiment, ...] = (
    replace(_MSVM, data="synapse"),
    replace(_MSVM, data="acdc"),
    replace(_MSVM, data="kvasir-seg", held_out=_PICTURES, held_out_recipe="msvm-unet-tuned"),
    replace(
        _XLSTM_2D,
        data="abdomen-mr",
        patch_size=(320, 320),
        lr=0.005,
        published=_ABDOMEN,
        held_out=_HELD_OUT_ABDOMEN,
    ),
    replace(
        _XLSTM_3D,
        data="abdomen-mr",
        patch_size=(48, 160, 224),
        lr=0.005,
        published=_ABDOMEN,
        held_out=_HELD_OUT_ABDOMEN,
    ),
    replace(
        _XLSTM_2D, data="endovis17", patch_size=(384, 640), lr=0.01, published=_PICTURES, held_out=_PICTURES
    ),
    replace(_CELLS, data="neurips-cell", patch_size=(512, 512)),
    replace(_CELLS, data="dsb2018", held_out_recipe="xlstm-unet-fast"),
    replace(
        _XLSTM_2D,
        data="kvasir-seg",
        lr=0.01,
        published=_PICTURES,
        held_out=_PICTURES,
        held_out_recipe="xlstm-unet-fast",
    ),
    replace(
        _XLSTM_3D,
        data="brats23",
        patch_size=(128, 128, 128),
        batch_size=2,
        lr=0.01,
        measures=("dice", "dice_of_cases", "hd95"),
        published=Scoring("brats-segmamba"),
    ),
    replace(_XLSTM_3D, data="hippocampus"),
)
"""Experiments of the papers, and both protocols on data that is easy to download: nuclei of dsb2018, polyps of
kvasir-seg, hippocampus."""


def find_experiment(paper: Paper, data: str, *, num_axes: int | None = None) -> Experiment:
    """Return an experiment.

    Args:
        paper: The paper.
        data: Name of the data set.
        num_axes: Number of spatial axes of the network. `None`: 2 if the paper has both, as in its tables.

    Raises:
        UsageError: The experiment does not exist. The message lists all of them.
    """
    of_paper = [one for one in EXPERIMENTS if one.paper == paper]
    found = [one for one in of_paper if one.data == data and num_axes in (None, one.num_axes)]
    if not found:
        available = ", ".join(f"{one.data} ({one.num_axes}D)" for one in of_paper)
        requested = data if num_axes is None else f"{data} ({num_axes}D)"
        raise UsageError(f"{paper} has no experiment on {requested}. Choose one of {available}")
    return min(found, key=lambda one: one.num_axes)


@cache
def published_results() -> PublishedResults:
    """Return the published results of both papers."""
    text = resources.files(__package__).joinpath("published", "results.json").read_text(encoding="utf-8")
    return PublishedResults.model_validate_json(text)


def results_of(experiment: Experiment) -> Sequence[PublishedResult]:
    """Return the published rows of an experiment, the paper's own first."""
    rows = [
        row
        for row in published_results().rows
        if (row.paper, row.data, row.num_axes) == (experiment.paper, experiment.data, experiment.num_axes)
    ]
    return sorted(rows, key=lambda row: not row.is_own)
