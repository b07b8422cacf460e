"""Counts and lists in messages."""

import pytest

from scanseg.errors import FaultsError, refuse_faults
from scanseg.messages import counted, first_lines, listed, merge_cases


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 cases"), (1, "1 case"), (2, "2 cases"), (101, "101 cases")]
)
def test_nouns_agree_with_numbers(number: int, text: str) -> None:
    assert counted(number, "case") == text


def test_long_lists_are_shortened() -> None:
    names = [str(number) for number in range(40)]
    assert listed(names[:3]) == "0, 1, 2"
    assert listed(names[:10]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert listed(names[:11]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 1 more"
    assert first_lines(names[:20]) == names[:20]
    assert first_lines(names) == [*names[:20], "and 20 more"]


def test_a_plural_without_s() -> None:
    assert (counted(1, "axis", "axes"), counted(3, "axis", "axes")) == ("1 axis", "3 axes")


def test_lines_of_equal_cases_are_merged() -> None:
    lines = [f"case {name}: labels/{name}_mask.png holds 255" for name in ("a", "b", "x.1")]
    assert merge_cases(lines[:2]) == lines[:2]
    assert merge_cases([*lines, "no folds"]) == [
        "3 cases (a, b, x.1): labels/CASE_mask.png holds 255",
        "no folds",
    ]
    differing = [f"case {number}: {number}.png holds {number}, 1.5 or 0/255" for number in range(4)]
    assert merge_cases(differing) == differing


def test_faults_are_limited_to_twenty_lines_after_merging() -> None:
    faults = [f"case {number}: holds {number}" for number in range(30)]
    faults += [f"case {number}: empty" for number in range(30)]
    with pytest.raises(FaultsError) as caught:
        refuse_faults("folder", faults)
    lines = str(caught.value).split("\n  ")
    assert lines[0] == "folder: 60 faults"
    assert lines[-1] == "and 11 more"
    assert len(lines) == 22
    assert caught.value.faults == tuple(faults)
