"""A study: what is compared, and what came of it."""

import json
from itertools import product
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, PositiveFloat, model_validator

from scanseg.specs.base import Document

Seed = Annotated[int, Field(ge=0, lt=2**63)]
FoldNumber = Annotated[int, Field(ge=0)]


class StudyCell(Document):
    """One way to train, which differs from the others by some settings."""

    name: str = Field(min_length=1)
    recipe: str | None = None
    """Another recipe than that of the study."""
    settings: tuple[str, ...] = ()
    """Changes to the plan, each `path.to.key=value`, after those of the study."""


class StudySpec(Document):
    """A grid of trainings: every cell with every seed on every fold."""

    format: Literal[1] = 1
    title: str
    question: str
    """What the study answers."""
    recipe: str
    settings: tuple[str, ...] = ()
    """Changes to the plans of all cells, each `path.to.key=value`."""
    cells: tuple[StudyCell, ...] = ()
    grid: dict[str, tuple[JsonValue, ...]] = Field(default_factory=dict)
    """Instead of cells: settings by path, with the values that each takes; a cell for each combination."""
    baseline: str | None = None
    """Name of the cell with which the others are compared; None: the first."""
    seeds: tuple[Seed, ...] = Field(default=(0, 1, 2), min_length=1)
    folds: tuple[FoldNumber, ...] = Field(default=(0,), min_length=1)
    max_minutes: PositiveFloat | None = None
    """Of each training; its learning rate falls with the clock. None: what the plan says."""

    @model_validator(mode="after")
    def _check_cells(self) -> Self:
        if bool(self.cells) == bool(self.grid):
            raise ValueError("a study has either cells or a grid")
        names = [cell.name for cell in self.all_cells]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"a study compares at least two cells with names of their own, not {names}")
        if self.baseline is not None and self.baseline not in names:
            raise ValueError(f"baseline {self.baseline!r} is not among the cells {', '.join(names)}")
        for name, values in (("seeds", self.seeds), ("folds", self.folds)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} {values} name one twice")
        return self

    @property
    def all_cells(self) -> tuple[StudyCell, ...]:
        """The cells, those of the grid written out."""
        if self.cells:
            return self.cells
        paths = tuple(self.grid)
        return tuple(
            StudyCell(
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
        """Name of the cell with which the others are compared."""
        return self.baseline or self.all_cells[0].name


def _text(value: JsonValue) -> str:
    """Write a value as `--set` reads it."""
    return json.dumps(value)


class StudyRun(Document):
    """One training."""

    seed: int
    fold: int
    model: str
    """Its folder, in that of the study."""
    mean_dice: float | None
    """Mean over labels of the mean over validation cases."""
    epochs_done: int
    seconds: float


class CellOutcome(Document):
    """All trainings of one cell."""

    name: str
    settings: tuple[str, ...]
    num_parameters: int
    runs: tuple[StudyRun, ...]
    mean_dice: float | None
    """Mean over the trainings."""
    std: float | None
    """Standard deviation over the trainings; None: one training."""
    seed_std: float | None
    """Standard deviation over seeds of the mean over folds; None: one seed."""
    labels: dict[str, float | None]
    """Dice of each label, mean over the trainings."""


class Comparison(Document):
    """One cell against the baseline, case by case."""

    cell: str
    baseline: str
    gain: float | None
    """Mean Dice of the cell less that of the baseline."""
    seed_std: float | None
    """Pooled standard deviation over seeds of both; None: one seed."""
    exceeds_seeds: bool | None
    """Whether the gain, of either sign, is more than twice its standard error over seeds; None: one seed."""
    num_cases: int
    """Validation cases that both have scored; each by its mean over labels and seeds."""
    num_better: int
    """Cases in which the cell is better."""
    p_value: float | None
    """Of Wilcoxon's signed-rank test over these cases, two-sided; None: fewer than two cases."""
    p_corrected: float | None
    """By Holm's method, for all comparisons of the study."""


class StudyRecord(Document):
    """What a study gave."""

    format: Literal[1] = 1
    spec: StudySpec
    dataset: str
    cells: tuple[CellOutcome, ...]
    comparisons: tuple[Comparison, ...]
    waiting: tuple[str, ...] = ()
    """Trainings that are still to be done."""
