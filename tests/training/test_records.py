"""The record of a run."""

import pytest

from scanseg.training.records import command_words


@pytest.mark.parametrize(
    ("program", "word"),
    [
        ("/home/me/env/bin/scanseg", "scanseg"),
        ("/home/me/scanseg/__main__.py", "scanseg"),
        ("step.py", "step.py"),
    ],
)
def test_a_command_does_not_say_where_its_program_lies(program, word):
    assert command_words([program, "train", "data/acdc"]) == (word, "train", "data/acdc")


def test_a_process_may_have_no_arguments():
    assert command_words([]) == ()
