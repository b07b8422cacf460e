"""Counts agree with what they count."""

import pytest

from scanseg.counts import counted


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 cases"), (1, "1 case"), (2, "2 cases"), (101, "101 cases")]
)
def test_one_is_singular(number: int, text: str) -> None:
    assert counted(number, "case") == text


def test_a_plural_without_s() -> None:
    assert (counted(1, "axis", "axes"), counted(3, "axis", "axes")) == ("1 axis", "3 axes")
