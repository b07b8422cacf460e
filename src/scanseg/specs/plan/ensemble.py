"""Ensembles, postprocessing, and the cross-validation that selects both."""

from collections import Counter
from pathlib import PurePosixPath
from typing import Literal

from pydantic import Field, PositiveInt, field_validator

from scanseg.messages import listed
from scanseg.specs.base import Document


class PostprocessingSpec(Document):
    """Components that are removed from a predicted label map, in this order."""

    largest_foreground: bool = False
    """Keep only the largest connected component of the foreground."""
    largest_component: tuple[str, ...] = ()
    """Names of labels or regions of which only the largest connected component is kept."""


class EnsembleSpec(Document):
    """The file `ensemble.json` of a model folder with several members."""

    format: Literal[1] = 1
    """Version of the file format."""
    members: tuple[str, ...] = Field(min_length=1)
    """Model folders of the members, relative to this folder."""
    average: Literal["logits", "probabilities"] = "logits"
    """Averaged arrays.

    `logits`: for members of one plan, on the network's grid. `probabilities`: for members of different plans, on the
    source grid. These members may be ensembles themselves.
    """
    postprocessing: PostprocessingSpec = PostprocessingSpec()
    """Components that are removed from predicted label maps."""

    @field_validator("members")
    @classmethod
    def _check_members(cls, members: tuple[str, ...]) -> tuple[str, ...]:
        for member in members:
            parts = PurePosixPath(member).parts
            if not parts or ".." in parts or PurePosixPath(member).is_absolute() or "\\" in member:
                raise ValueError(f'expected folders inside the folder of the ensemble, got "{member}"')
        counts = Counter(map(PurePosixPath, members))
        twice = [str(member) for member, count in counts.items() if count > 1]
        if twice:
            raise ValueError(f"expected each member once, got {listed(twice)} more than once")
        return members


class FoldOutcome(Document):
    """One training of a cross-validation."""

    fold: int
    """Number of the fold, from 0."""
    model: str
    """Model folder of the training, relative to the folder of the cross-validation."""
    epochs_done: int
    """Finished epochs."""
    seconds: float
    """Training time in seconds."""
    mean_dice: float | None
    """Mean over labels of the Dice of the fold's validation cases. `None`: no label was scored."""


class ScoredOutcome(Document):
    """Scores of the validation cases of all folds."""

    name: str
    """Name of the recipe or of the plan file. For a pair: both names, joined by ` + `."""
    labels: dict[str, float | None]
    """Mean Dice of each label over the validation cases of all folds. `None`: no case was scored."""
    mean_dice: float | None
    """Mean of `labels`. `None`: no label was scored."""
    postprocessing: PostprocessingSpec
    """Postprocessing that raises the mean Dice of these cases without lowering the Dice of any label."""
    postprocessed_labels: dict[str, float | None]
    """Mean Dice of each label after postprocessing. `None`: no case was scored."""
    postprocessed_mean_dice: float | None
    """Mean of `postprocessed_labels`. `None`: no label was scored."""


class ConfigurationOutcome(ScoredOutcome):
    """All folds of one recipe or plan."""

    folds: tuple[FoldOutcome, ...]
    """The trainings of the folds."""


class EnsembleOutcome(ScoredOutcome):
    """A pair of recipes or plans with averaged probabilities."""

    members: tuple[str, ...]
    """Names of the two configurations."""


class CrossValidationRecord(Document):
    """The file `crossval.json` of a cross-validation."""

    format: Literal[1] = 1
    """Version of the file format."""
    dataset: str
    """Name of the data set."""
    num_cases: PositiveInt
    """Number of validation cases of all folds."""
    configurations: tuple[ConfigurationOutcome, ...]
    """Results of each recipe or plan."""
    ensembles: tuple[EnsembleOutcome, ...] = ()
    """Results of pairs of configurations. Empty with one configuration or without pairs."""
    chosen: str
    """Name of the configuration or pair with the highest mean Dice after postprocessing.

    Of equal ones it is the first, and configurations come before pairs. It is the model of the cross-validation.
    """

    @property
    def outcomes(self) -> tuple[ScoredOutcome, ...]:
        """All results: configurations, then ensembles."""
        return (*self.configurations, *self.ensembles)
