"""Learning rates."""

import pytest

from scanseg.specs import ScheduleSpec
from scanseg.training.schedules import learning_rate


def test_poly_falls_by_its_power():
    assert learning_rate(ScheduleSpec(), lr=0.01, progress=0) == 0.01
    assert learning_rate(ScheduleSpec(), lr=0.01, progress=0.5) == pytest.approx(0.01 * 0.5**0.9)
    assert learning_rate(ScheduleSpec(), lr=0.01, progress=1) == 0


def test_cosine_ends_at_the_final_rate():
    spec = ScheduleSpec(kind="cosine", final_lr=1e-6)

    assert learning_rate(spec, lr=5e-4, progress=0) == pytest.approx(5e-4)
    assert learning_rate(spec, lr=5e-4, progress=0.5) == pytest.approx((5e-4 + 1e-6) / 2)
    assert learning_rate(spec, lr=5e-4, progress=1) == pytest.approx(1e-6)


def test_warm_up_rises_linearly_and_starts_above_zero():
    spec = ScheduleSpec(kind="constant", warmup_fraction=0.1)

    assert 0 < learning_rate(spec, lr=1.0, progress=0) < 0.02
    assert learning_rate(spec, lr=1.0, progress=0.05) == pytest.approx(0.5)
    assert learning_rate(spec, lr=1.0, progress=0.5) == 1.0


def test_the_shortest_warm_up_does_not_exceed_the_highest_rate():
    assert learning_rate(ScheduleSpec(kind="constant", warmup_fraction=1e-4), lr=1.0, progress=0) == 1.0
