"""Comparisons, against values worked out by hand."""

import pytest

from scanseg.experiments.statistics import compare, correct


def cases(*dice):
    return {f"case_{number}": value for number, value in enumerate(dice)}


def test_signed_rank_of_cases_that_are_all_better():
    theirs = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85]
    ours = [value + 0.01 * rank for rank, value in enumerate(theirs, start=1)]

    one = compare("a", "b", cases=(cases(*ours), cases(*theirs)), by_seed=([0.7], [0.6]))

    # One of the 2^8 ways to give signs to the ranks, and its mirror image.
    assert one.p_value == pytest.approx(2 / 2**8)
    assert (one.num_cases, one.num_better) == (8, 8)
    assert one.gain == pytest.approx(0.1)
    assert (one.seed_std, one.exceeds_seeds) == (None, None)


def test_only_cases_that_both_have_are_compared():
    ours, theirs = cases(0.9, 0.8, 0.7), cases(0.8, 0.9)
    one = compare("a", "b", cases=(ours, theirs), by_seed=([0.8], [0.85]))
    assert (one.num_cases, one.num_better) == (2, 1)


def test_what_does_not_differ_is_not_significant():
    same = cases(0.1, 0.2, 0.3)
    one = compare("a", "b", cases=(same, same), by_seed=([0.2, 0.2], [0.2, 0.2]))
    assert one.p_value == 1.0
    assert one.gain == 0
    assert one.exceeds_seeds is False
    assert compare("a", "b", cases=(cases(0.5), cases(0.1)), by_seed=([], [])).p_value is None


@pytest.mark.parametrize(
    ("gain", "exceeds"), [(0.015, False), (-0.015, False), (0.018, True), (-0.018, True)]
)
def test_gain_against_the_spread_over_seeds(gain, exceeds):
    theirs = [0.69, 0.70, 0.71]
    ours = [value + gain for value in theirs]

    one = compare("a", "b", cases=(cases(0.5, 0.6), cases(0.5, 0.7)), by_seed=(ours, theirs))

    # Both have a variance of 1e-4: the gain's standard error is sqrt(2e-4 / 3) = 0.0082, twice that 0.0163.
    assert one.gain == pytest.approx(gain)
    assert one.seed_std == pytest.approx(0.01)
    assert one.exceeds_seeds is exceeds


def test_holm():
    def comparison(p):
        one = compare("a", "b", cases=(cases(0.5, 0.6), cases(0.4, 0.7)), by_seed=([0.5], [0.5]))
        return one.model_copy(update={"p_value": p})

    corrected = correct([comparison(p) for p in (0.01, 0.04, None, 0.03, 0.005)])

    # 0.005 * 4, 0.01 * 3, 0.03 * 2, then 0.04 * 1, which must not fall below 0.06.
    assert [one.p_corrected for one in corrected] == [
        pytest.approx(0.03),
        pytest.approx(0.06),
        None,
        pytest.approx(0.06),
        pytest.approx(0.02),
    ]
    (sure,) = correct([comparison(0.9)])
    assert sure.p_corrected == 0.9
