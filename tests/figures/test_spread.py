import matplotlib.pyplot as plt
import numpy as np
import pytest

from scanseg.figures import draw_dice_over_time
from scanseg.imaging import LABEL_COLOURS


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def training(*points):
    """Return lines of metrics. Every second epoch has validation scores."""
    lines = []
    for seconds, dice in points:
        lines.append({"seconds": seconds - 1, "loss": 0.5})
        lines.append({"seconds": seconds, "loss": 0.5, "validation_dice": dice})
    return lines


def test_every_training_is_a_line_of_its_mean_dice(axes):
    trainings = {
        "none": [training((10, {"a": 0.2, "b": 0.4}), (20, {"a": 0.6, "b": None}))],
        "Enc": [training((5, {"a": 1.0, "b": 0.5})), training((7, {"a": None, "b": None}))],
    }
    draw_dice_over_time(axes, trainings, baseline="none")

    first, second, third = axes.get_lines()
    np.testing.assert_allclose(first.get_xydata(), [(10, 0.3), (20, 0.6)])
    np.testing.assert_allclose(second.get_xydata(), [(5, 0.75)])
    assert np.isnan(third.get_ydata()).all()
    assert first.get_color() == "#000000"
    assert second.get_color() == third.get_color() == LABEL_COLOURS[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["none", "Enc"]
    assert axes.get_xlabel() == "time of training (s)"


def test_long_trainings_are_drawn_in_minutes(axes):
    draw_dice_over_time(axes, {"none": [training((600, {"a": 0.5}))]}, baseline="none")
    assert axes.get_xlabel() == "time of training (min)"
    np.testing.assert_allclose(axes.get_lines()[0].get_xydata(), [(10, 0.5)])


def test_a_comparison_without_trainings_draws_no_lines(axes):
    draw_dice_over_time(axes, {"none": [], "Enc": []}, baseline="none")
    assert not axes.get_lines()
    assert axes.get_legend() is None


def test_the_lines_of_many_arms_differ_in_style(axes):
    names = [f"arm {number}" for number in range(2 * len(LABEL_COLOURS))]
    draw_dice_over_time(axes, {name: [training((10, {"a": 0.5}))] for name in names}, baseline=names[0])
    styles = {(line.get_color(), line.get_linestyle()) for line in axes.get_lines()}
    assert len(styles) == len(names)
