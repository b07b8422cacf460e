"""The timing of a first step in a plain loop."""

import json

import pytest

from benchmarks.first_pass import describe, main


@pytest.mark.slow
def test_steps_are_taken_with_empty_and_filled_caches(tmp_path, capsys):
    """On a CPU, where nothing is compiled."""
    output = tmp_path / "record.json"
    words = [
        "--device",
        "cpu",
        "--tiny",
        "--networks",
        "xlstm-unet-enc",
        "-o",
        str(output),
        "--commit",
        "none",
    ]
    main(words)  # the exit code depends on the speed of the machine
    runs = json.loads(output.read_text())["runs"]
    assert [(run["network"], run["cache"]) for run in runs] == [
        ("xlstm-unet-enc", "empty"),
        ("xlstm-unet-enc", "filled"),
    ]
    assert all(
        run["num_kernels_ahead"] == run["num_kernels_at_launch"] == run["num_messages"] == 0 for run in runs
    )
    assert all(run["longest_silence_seconds"] <= run["first_step_seconds"] + 0.1 for run in runs)
    assert capsys.readouterr().out.count("longest silence") == 2


def test_a_line_names_kernels_checks_and_silence():
    run = {
        "network": "msvm-unet",
        "cache": "empty",
        "first_step_seconds": 14.2,
        "second_step_seconds": 0.1,
        "num_kernels_ahead": 90,
        "num_kernels_at_launch": 0,
        "num_kernels_in_processes": 84,
        "verdicts": ["mlstm bfloat16: correct"],
        "longest_silence_seconds": 2.1,
    }
    assert describe(run) == (
        "msvm-unet, empty caches: step 1 14.20 s, step 2 0.100 s, kernels 90 ahead + 0 at launch (84 in processes), "
        "1 checks, longest silence 2.1 s"
    )
