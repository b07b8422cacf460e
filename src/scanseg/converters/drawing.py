"""Drawing of test cases of a data set without a published split."""

from dataclasses import replace

import numpy as np

from scanseg.converters.sources import NamedDataset, SourceCase
from scanseg.errors import UsageError
from scanseg.messages import counted
from scanseg.specs import Fold

TEST_SEED = 0
"""Seed for drawing test cases of a data set without a published split."""


def check_test_fraction(fraction: float | None) -> None:
    """Check a test fraction before files are read.

    Args:
        fraction: Fraction of the cases, from 0 to below 1. `None`: that of the data set.

    Raises:
        UsageError: The number is outside this range.
    """
    if fraction is not None and not 0 <= fraction < 1:
        raise UsageError(
            f"test fraction: expected a number from 0 to below 1, got {fraction}. Give 0.2 for a fifth."
        )


def draw_test_cases(
    named: NamedDataset, cases: tuple[SourceCase, ...], fraction: float | None
) -> tuple[tuple[SourceCase, ...], tuple[str, ...]]:
    """Draw test cases if the source has none.

    Args:
        named: The data set.
        cases: Cases of the source.
        fraction: Fraction of the cases to draw. `None`: that of the data set.

    Returns:
        All cases, and a note if test cases were drawn.

    Raises:
        UsageError: A fraction is given, and the source has a split of its own.
    """
    has_test = any(case.part in ("validation", "test") for case in cases)
    if fraction is not None and has_test:
        raise UsageError(f"this source of {named.name} has a split of its own. Leave the test fraction out.")
    part = named.test_fraction if fraction is None else fraction
    labelled = [case for case in cases if case.part != "unlabelled"]
    number = 0 if has_test else round(part * len(labelled))
    if number == 0:
        return cases, ()
    names = sorted(case.name for case in labelled)
    chosen = {names[i] for i in np.random.default_rng(TEST_SEED).permutation(len(names))[:number]}
    drawn = tuple(replace(case, part="test") if case.name in chosen else case for case in cases)
    return drawn, (
        f"{number} of {counted(len(labelled), 'case')} drawn as test set (seed {TEST_SEED}), as none is published",
    )


def without_test_cases(folds: tuple[Fold, ...], cases: tuple[SourceCase, ...]) -> tuple[Fold, ...]:
    """Return folds without test cases.

    A fold that has no training or no validation cases left is left out.

    Args:
        folds: The folds.
        cases: All cases, with their parts.
    """
    test = {case.name for case in cases if case.part == "test"}
    kept = []
    for fold in folds:
        train = tuple(name for name in fold.train if name not in test)
        validation = tuple(name for name in fold.validation if name not in test)
        if (train, validation) == (fold.train, fold.validation):
            kept.append(fold)
        elif train and validation:
            kept.append(Fold(train=train, validation=validation))
    return tuple(kept)
