"""Comparisons of ways to train: description and results."""

import json
from itertools import product
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, PositiveFloat, model_validator

from scanseg.specs.base import Document, RenamedFields

Seed = Annotated[int, Field(ge=0, lt=2**63)]
FoldNumber = Annotated[int, Field(ge=0)]


class ComparisonArm(Document):
    """One way to train: a recipe with settings."""

    name: str = Field(min_length=1)
    """Name of the arm."""
    recipe: str | None = None
    """Name of the recipe. `None`: the recipe of the comparison."""
    settings: tuple[str, ...] = ()
    """Changes to the plan, each `path.to.key=value`, applied after those of the comparison."""


class ComparisonSpec(RenamedFields):
    """Description of a comparison.

    Every arm is trained with every seed on every fold.
    """

    format: Literal[1] = 1
    """Version of the file format."""
    title: str
    """Title of the comparison."""
    question: str
    """Question of the comparison."""
    recipe: str
    """Name of the recipe of all arms without their own."""
    settings: tuple[str, ...] = ()
    """Changes to the plans of all arms, each `path.to.key=value`."""
    arms: tuple[ComparisonArm, ...] = ()
    """The arms. Empty with a `grid`."""
    grid: dict[str, tuple[JsonValue, ...]] = Field(default_factory=dict)
    """Settings by path, with their values. Every combination is an arm. It replaces the list of arms."""
    baseline: str | None = None
    """Name of the arm that the others are compared with. `None`: the first arm."""
    seeds: tuple[Seed, ...] = Field(default=(0, 1, 2), min_length=1)
    """Seeds of the trainings."""
    folds: tuple[FoldNumber, ...] = Field(default=(0,), min_length=1)
    """Numbers of the folds, from 0."""
    max_minutes: PositiveFloat | None = None
    """Longest time of each training in minutes. `None`: the plan's.

    The learning rate schedule then follows the clock.
    """

    @model_validator(mode="after")
    def _check_arms(self) -> Self:
        if bool(self.arms) == bool(self.grid):
            raise ValueError("expected either arms or a grid, got both or none")
        names = [arm.name for arm in self.all_arms]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"arms: expected at least two with different names, got {names}")
        if self.baseline is not None and self.baseline not in names:
            raise ValueError(f"baseline: expected one of {', '.join(names)}, got {self.baseline!r}")
        for name, values in (("seeds", self.seeds), ("folds", self.folds)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: expected different numbers, got {values}")
        return self

    @property
    def all_arms(self) -> tuple[ComparisonArm, ...]:
        """All arms, with the grid written out."""
        if self.arms:
            return self.arms
        paths = tuple(self.grid)
        return tuple(
            ComparisonArm(
                name=", ".join(
                    f"{path.rpartition('.')[2]}={_text(value)}"
                    for path, value in zip(paths, values, strict=True)
                ),
                settings=tuple(f"{path}={_text(value)}" for path, value in zip(paths, values, strict=True)),
            )
            for values in product(*self.grid.values())
        )

    @property
    def baseline_name(self) -> str:
        """Name of the arm that the others are compared with."""
        return self.baseline or self.all_arms[0].name


def _text(value: JsonValue) -> str:
    """Return a value in the syntax of `--set`."""
    return json.dumps(value)


class ArmRun(Document):
    """One training of a comparison."""

    seed: int
    """Seed of the training."""
    fold: int
    """Number of the fold, from 0."""
    model: str
    """Model folder, relative to the folder of the comparison."""
    mean_dice: float | None
    """Mean over labels of the mean Dice over validation cases. `None`: no label was scored."""
    epochs_done: int
    """Finished epochs."""
    seconds: float
    """Training time in seconds."""


class ArmOutcome(Document):
    """All trainings of one arm."""

    name: str
    """Name of the arm."""
    settings: tuple[str, ...]
    """Changes to the plan, each `path.to.key=value`."""
    num_parameters: int
    """Parameters of the network."""
    runs: tuple[ArmRun, ...]
    """The trainings."""
    mean_dice: float | None
    """Mean Dice over the trainings. `None`: no training was scored."""
    std: float | None
    """Standard deviation of the Dice over the trainings. `None`: one training."""
    seed_std: float | None
    """Standard deviation over seeds of the mean Dice over folds. `None`: one seed."""
    labels: dict[str, float | None]
    """Mean Dice of each label over the trainings. `None`: no case was scored."""


class ArmComparison(RenamedFields):
    """Differences of one arm from the baseline, case by case."""

    arm: str
    """Name of the arm."""
    baseline: str
    """Name of the baseline."""
    gain: float | None
    """Mean Dice of the arm minus that of the baseline."""
    seed_std: float | None
    """Pooled standard deviation of both over seeds. `None`: one seed."""
    exceeds_seeds: bool | None
    """True if the absolute gain exceeds twice its standard error over seeds. `None`: one seed."""
    num_cases: int
    """Number of validation cases with scores of both. Each counts by its mean over labels and seeds."""
    num_better: int
    """Number of cases with a higher Dice of the arm."""
    p_value: float | None
    """Two-sided p-value of Wilcoxon's signed-rank test over these cases. `None`: fewer than two cases."""
    p_corrected: float | None
    """The p-value corrected by Holm's method for all arms. `None`: fewer than two cases."""


class ComparisonRecord(RenamedFields):
    """Results of a comparison."""

    format: Literal[1] = 1
    """Version of the file format."""
    spec: ComparisonSpec
    """Description of the comparison."""
    dataset: str
    """Name of the data set."""
    arms: tuple[ArmOutcome, ...]
    """Results of each arm."""
    comparisons: tuple[ArmComparison, ...]
    """Differences of each arm from the baseline."""
    missing: tuple[str, ...] = ()
    """Names of the remaining trainings."""
