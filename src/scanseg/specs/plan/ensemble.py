"""Several models that predict as one, what is done to their label maps, and the study that chose both."""

from typing import Literal

from pydantic import Field, PositiveInt

from scanseg.specs.base import Document


class PostprocessingSpec(Document):
    """What is removed from a predicted label map, in this order."""

    largest_foreground: bool = False
    """Keep the largest connected component of all that is not background."""
    largest_component: tuple[str, ...] = ()
    """Labels, or regions, of which the largest connected component is kept."""


class EnsembleSpec(Document):
    """Written as `ensemble.json` into a folder that is then a model of several models."""

    format: Literal[1] = 1
    members: tuple[str, ...] = Field(min_length=1)
    """Model folders, relative to this one."""
    average: Literal["logits", "probabilities"] = "logits"
    """What is averaged: the logits of models of one plan, on the network's grid; or the probabilities of models of
    different plans, on the grid of the image. Members of the latter may be folders of several models themselves."""
    postprocessing: PostprocessingSpec = PostprocessingSpec()


class FoldOutcome(Document):
    """One training of a cross-validation."""

    fold: int
    model: str
    """Its model folder, relative to the study's."""
    epochs_done: int
    seconds: float
    mean_dice: float | None
    """Mean over labels of the Dice of its validation cases."""


class ScoredOutcome(Document):
    """How the validation cases of all folds were predicted."""

    name: str
    """Name of the recipe, or of the plan's file; of an ensemble, of both, with ` + ` between them."""
    labels: dict[str, float | None]
    """Mean Dice of each label over the validation cases of all folds."""
    mean_dice: float | None
    postprocessing: PostprocessingSpec
    """What raised the mean Dice of these cases without lowering that of any label."""
    postprocessed_labels: dict[str, float | None]
    postprocessed_mean_dice: float | None


class ConfigurationOutcome(ScoredOutcome):
    """All folds of one way to plan."""

    folds: tuple[FoldOutcome, ...]


class EnsembleOutcome(ScoredOutcome):
    """Two ways to plan, whose probabilities are averaged."""

    members: tuple[str, ...]
    """Names of the ways to plan."""


class CrossValidationRecord(Document):
    """Written as `crossval.json`."""

    format: Literal[1] = 1
    dataset: str
    num_cases: PositiveInt
    """Validation cases of all folds."""
    configurations: tuple[ConfigurationOutcome, ...]
    ensembles: tuple[EnsembleOutcome, ...] = ()
    """Pairs of the configurations; none where there is one, or pairs were not wanted."""
    chosen: str
    """Name of the configuration, or of the pair, with the highest mean Dice after postprocessing; of equal ones the
    first, configurations before pairs. It is the model of the study."""

    @property
    def outcomes(self) -> tuple[ScoredOutcome, ...]:
        """Configurations, then ensembles."""
        return (*self.configurations, *self.ensembles)
