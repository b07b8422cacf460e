"""Counts and lists in messages."""

import pytest

from scanseg.messages import counted, first_lines, listed


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
