"""Progress on stderr."""

import io
import sys

import pytest
from rich.console import Console

from scanseg import progress_display as module
from scanseg.progress import ProgressUpdate
from scanseg.progress_display import Pace, ProgressLines, display, show_progress


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("done", "seconds", "text"),
    [
        (0, 5.0, ""),
        (10, 5.0, "2.0/s, 0:00:45 left"),
        (4, 400.0, "100.0 s each, 2:40:00 left"),
        (100, 50.0, "2.0/s"),
    ],
)
def test_pace(done: int, seconds: float, text: str) -> None:
    pace = Pace(first_done=0, first_time=20.0)
    assert pace.describe(ProgressUpdate("training", done, 100), now=20.0 + seconds) == text


def test_pace_of_a_resumed_task_starts_at_its_first_update() -> None:
    assert Pace(90, 0.0).describe(ProgressUpdate("training", 95, 100), now=10.0) == "2.0 s each, 0:00:10 left"


def test_lines_come_every_eight_seconds_and_at_the_end() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = ProgressLines(stream, clock)
    for done in range(31):
        progress(ProgressUpdate("training", done, 30, f"epoch {done}"))
        clock.now += 1
    assert stream.getvalue().splitlines() == [
        "training 3/30  1.0/s, 0:00:27 left  epoch 3",
        "training 11/30  1.0/s, 0:00:19 left  epoch 11",
        "training 19/30  1.0/s, 0:00:11 left  epoch 19",
        "training 27/30  1.0/s, 0:00:03 left  epoch 27",
        "training 30/30  1.0/s  epoch 30",
    ]


def test_a_task_with_a_time_limit_shows_its_time() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = ProgressLines(stream, clock)
    for seconds in range(0, 91, 6):
        detail = f"iteration {3 * seconds}, loss 0.5"
        progress(ProgressUpdate("training", seconds, 90, detail, unit="seconds"))
        clock.now += 6
    lines = stream.getvalue().splitlines()
    assert lines[0] == "training 0:00:06/0:01:30  0:01:24 left  iteration 18, loss 0.5"
    assert lines[-1] == "training 0:01:30/0:01:30  iteration 270, loss 0.5"


def test_short_tasks_print_no_lines() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = ProgressLines(stream, clock)
    for done in range(11):
        progress(ProgressUpdate("checking", done, 10))
        clock.now += 0.1
    assert stream.getvalue() == ""


def test_a_repeated_task_starts_again() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = ProgressLines(stream, clock)
    for done in (0, 5):
        progress(ProgressUpdate("reading", done, 5))
        clock.now += 5
    progress(ProgressUpdate("reading", 0, 5))
    clock.now += 50
    progress(ProgressUpdate("reading", 5, 5))
    assert stream.getvalue().splitlines() == ["reading 5/5  1.0/s", "reading 5/5  10.0 s each"]


def test_without_a_terminal_no_bar_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress() as progress:
        progress(ProgressUpdate("checking", 1, 2))
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(
        module, "Console", lambda **_: Console(file=stream, force_terminal=True, width=100, color_system=None)
    )
    with show_progress() as progress:
        progress(ProgressUpdate("training", 0, 4))
        progress(ProgressUpdate("training", 4, 4, "loss [0.1]"))
        progress(ProgressUpdate("scoring", 0, 2, "case_7"))
        progress(ProgressUpdate("more", 70, 90, unit="seconds"))
    shown = stream.getvalue()
    assert "training" in shown
    assert "4/4" in shown
    assert "loss [0.1]" in shown
    assert "scoring" in shown
    assert "case_7" in shown
    assert "0:01:10/0:01:30" in shown
    assert "0:00:20 left" in shown


def test_a_reminder_comes_if_work_takes_long() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = ProgressLines(stream, clock)
    progress.remind()
    clock.now += 8
    progress.remind()
    progress(ProgressUpdate("training", 3, 30))
    for _ in range(25):
        clock.now += 1
        progress.remind()
    assert stream.getvalue().splitlines() == [
        "still working, 0:00:08 after the start",
        "still working, 0:00:08 after training 3/30",
        "still working, 0:00:16 after training 3/30",
        "still working, 0:00:24 after training 3/30",
    ]


def test_notes_are_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress() as progress:
        for done in range(2):
            progress(ProgressUpdate("training", done, 2, notes=("on cpu",), warnings=("small",)))
    assert capsys.readouterr().err == "on cpu\nwarning: small\n"


def test_a_choice_of_progress(capsys: pytest.CaptureFixture[str]) -> None:
    update, heard = ProgressUpdate("training", 0, 2, notes=("on cpu",)), []
    for choice in (True, False, heard.append):
        with display(choice) as progress:
            progress(update)
    assert capsys.readouterr().err == "on cpu\n"
    assert heard == [update]
