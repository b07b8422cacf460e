"""The experiments of both papers: on which data, by which recipe, scored by which rule, and what was reported."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Literal

from scanseg.errors import UsageError
from scanseg.papers.scoring import Scoring
from scanseg.specs import Measure, Paper, PublishedResult, PublishedResults, Variant

BASELINES = ("plain-unet", "residual-unet", "dynunet", "segresnet", "unetr", "swin-unetr")
"""Networks that train beside a paper's own."""
_SEQUENCE_PEERS: dict[Paper, tuple[str, ...]] = {
    "msvm-unet": ("no-sequence",),
    "xlstm-unet": ("no-sequence", "mamba"),
}
"""The paper's own network with another sequence block, or none."""


@dataclass(frozen=True)
class Experiment:
    """One experiment of a paper, or its protocol on data that the paper does not have."""

    paper: Paper
    data: str
    num_axes: Literal[2, 3]
    recipe: str
    measures: tuple[Measure, ...]
    published: Scoring
    """As the paper scored."""
    held_out: Scoring
    patch_size: tuple[int, ...] | None = None
    """As published; None: that of the recipe."""
    batch_size: int | None = None
    lr: float | None = None
    """As published."""
    lr_of_variant: tuple[tuple[Variant, float], ...] = ()
    epochs: int | None = None

    @property
    def baselines(self) -> tuple[str, ...]:
        """Networks that may train beside the paper's own."""
        return (*_SEQUENCE_PEERS[self.paper], *BASELINES)

    @property
    def name(self) -> str:
        """The experiment in words."""
        return f"{self.paper} on {self.data}, {self.num_axes}D"


_SOUND = Scoring("skip")
_PICTURES = Scoring("skip", "voxels")
"""Pictures have no spacing."""
_OBJECTS = replace(_PICTURES, instances=True)
_MSVM = Experiment(
    paper="msvm-unet",
    data="",
    num_axes=2,
    recipe="msvm-unet",
    measures=("dice", "dice_of_cases", "hd95"),
    published=Scoring("transunet", "voxels"),
    held_out=_SOUND,
    batch_size=32,
    lr=5e-4,
    epochs=300,
)
_ABDOMEN = Scoring("umamba", tolerance_preset="abdomen")
_SOUND_ABDOMEN = Scoring("skip", tolerance_preset="abdomen")
_XLSTM_2D = Experiment(
    paper="xlstm-unet",
    data="",
    num_axes=2,
    recipe="xlstm-unet-2d",
    measures=("dice", "dice_of_cases", "nsd"),
    published=_SOUND,
    held_out=_SOUND,
    epochs=1000,
)
_XLSTM_3D = replace(_XLSTM_2D, num_axes=3, recipe="xlstm-unet")
_CELLS = replace(
    _XLSTM_2D,
    measures=("f1", "dice"),
    published=_OBJECTS,
    held_out=_OBJECTS,
    lr_of_variant=(("bot", 0.007), ("enc", 0.0015)),
)

EXPERIMENTS: tuple[Experiment, ...] = (
    replace(_MSVM, data="synapse"),
    replace(_MSVM, data="acdc"),
    replace(_MSVM, data="kvasir-seg", held_out=_PICTURES),
    replace(
        _XLSTM_2D,
        data="abdomen-mr",
        patch_size=(320, 320),
        lr=0.005,
        published=_ABDOMEN,
        held_out=_SOUND_ABDOMEN,
    ),
    replace(
        _XLSTM_3D,
        data="abdomen-mr",
        patch_size=(48, 160, 224),
        lr=0.005,
        published=_ABDOMEN,
        held_out=_SOUND_ABDOMEN,
    ),
    replace(
        _XLSTM_2D, data="endovis17", patch_size=(384, 640), lr=0.01, published=_PICTURES, held_out=_PICTURES
    ),
    replace(_CELLS, data="neurips-cell", patch_size=(512, 512)),
    replace(_CELLS, data="dsb2018"),
    replace(_XLSTM_2D, data="kvasir-seg", lr=0.01, published=_PICTURES, held_out=_PICTURES),
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
"""Those of the papers (section 1 of the design's experiments), and both protocols on data that is easily had: nuclei of
dsb2018, polyps of kvasir-seg, hippocampus."""


def find_experiment(paper: Paper, data: str, *, num_axes: int | None = None) -> Experiment:
    """Return an experiment.

    Args:
        paper: The paper.
        data: Name of the data set.
        num_axes: Axes of the network, where there is a choice; None: 2 where both are there, as in the paper's tables.

    Raises:
        UsageError: There is no such experiment; those that there are are listed.
    """
    known = [one for one in EXPERIMENTS if one.paper == paper]
    found = [one for one in known if one.data == data and num_axes in (None, one.num_axes)]
    if not found:
        there = ", ".join(f"{one.data} ({one.num_axes}D)" for one in known)
        asked = data if num_axes is None else f"{data} ({num_axes}D)"
        raise UsageError(f"{paper} has no experiment on {asked}; it has {there}")
    return min(found, key=lambda one: one.num_axes)


@cache
def published_results() -> PublishedResults:
    """Return what the papers reported, which lies beside this module as JSON."""
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
