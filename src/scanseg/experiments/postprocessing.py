"""Choose the postprocessing by the scores of predicted validation cases.

Source: nnU-Net (Isensee et al. 2021, supplement). It tries to keep the largest component of all foreground first, then
of each label, and accepts each step only if the mean Dice of a label rises and no mean Dice falls. nnU-Net accepts
any rise. Here the rise must be visible in tables (docs/decisions/0022-postprocessing.md).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from scanseg.evaluation import CaseScores, Report, find_unit, make_report, score_case
from scanseg.inference import postprocess
from scanseg.preprocessing import Store, read_array
from scanseg.runtime import RunContext, map_cases
from scanseg.specs import PostprocessingSpec

Dice = Mapping[str, float | None]

LEAST_RISE = 0.0005
"""Smallest accepted rise of the mean Dice of a label: half of the third digit."""


@dataclass(frozen=True)
class PredictedCase:
    """A validation case and its label map."""

    name: str
    label_map: Path


@dataclass(frozen=True)
class Choice:
    """The chosen postprocessing with the mean Dice of each label."""

    postprocessing: PostprocessingSpec
    before: Dice
    """Mean Dice of each label without postprocessing."""
    after: Dice
    """Mean Dice of each label with it."""


def choose_postprocessing(cases: Sequence[PredictedCase], store: Store, *, context: RunContext) -> Choice:
    """Choose the postprocessing that raises the mean Dice of validation cases.

    The mean Dice of a label must rise by `LEAST_RISE` or more, and that of no label may fall.

    Args:
        cases: Cases, each predicted by a network that was not trained on it.
        store: Store of their references.
        context: Worker processes and progress.
    """

    def measure(spec: PostprocessingSpec) -> Dice:
        score = partial(_score, store=store, spec=spec, surface=False)
        scores = map_cases(score, cases, context=context, task="choosing postprocessing")
        return _report(scores, store).summary.label_means()

    chosen = PostprocessingSpec()
    before = after = measure(chosen)
    candidates: Iterator[str | None] = iter((None, *store.index.dataset.foreground))
    for label in candidates:
        candidate = (
            chosen.model_copy(update={"largest_foreground": True})
            if label is None
            else chosen.model_copy(update={"largest_component": (*chosen.largest_component, label)})
        )
        dice = measure(candidate)
        if _is_better(dice, after):
            chosen, after = candidate, dice
    return Choice(chosen, before, after)


def score_postprocessed(
    cases: Sequence[PredictedCase], store: Store, spec: PostprocessingSpec, *, context: RunContext
) -> Report:
    """Score cases after postprocessing, with surface distances.

    Args:
        cases: The cases.
        store: Store of their references.
        spec: Postprocessing of their label maps.
        context: Worker processes and progress.
    """
    score = partial(_score, store=store, spec=spec, surface=True)
    return _report(map_cases(score, cases, context=context, task="scoring"), store)


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean without `None`.

    Args:
        values: Values. If all are `None`, the mean is `None`.
    """
    counted = [value for value in values if value is not None]
    return float(np.mean(counted)) if counted else None


def _is_better(new: Dice, old: Dice) -> bool:
    """Return whether a mean Dice rises enough and none falls."""
    pairs = [(new[name], value) for name, value in old.items() if value is not None]
    rises = [float(after or 0.0) - before for after, before in pairs]
    return bool(rises) and min(rises) >= 0 and max(rises) >= LEAST_RISE


def _score(case: PredictedCase, *, store: Store, spec: PostprocessingSpec, surface: bool) -> CaseScores:
    """Score a case after postprocessing."""
    dataset, stored = store.index.dataset, store.case(case.name)
    reference = store.read_reference(stored)
    predicted = read_array(case.label_map, shape=reference.shape)
    label_map = postprocess(predicted, spec, labels=dataset.foreground)
    scores = score_case(
        label_map,
        reference,
        spacing=stored.geometry.source_spacing,
        labels=dataset.foreground,
        ignore_label=dataset.ignore_label,
        surface=surface,
    )
    return CaseScores(case.name, scores)


def _report(scores: Sequence[CaseScores], store: Store) -> Report:
    """Return the report of all cases."""
    spacings = (store.case(score.case).geometry.source_spacing for score in scores)
    return make_report(
        scores,
        labels=store.index.dataset.foreground,
        ignore_label=store.index.dataset.ignore_label,
        predictions="validation cases of all folds",
        references=str(store.folder),
        labels_from="the plan",
        distance_unit=find_unit(store.index.dataset.file_ending, spacings),
    )
