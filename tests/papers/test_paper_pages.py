"""The pages on the papers: every command on them fits its experiment, and every field that they name is there."""

import re
import shlex
from pathlib import Path

import pytest

from scanseg.cli import build_app
from scanseg.papers.experiments import EXPERIMENTS, find_experiment
from scanseg.papers.protocols import check_baselines
from scanseg.papers.ready_comparisons import ready_comparisons
from scanseg.planning import RECIPES

PAGES = Path(__file__).resolve().parents[2] / "docs" / "papers"
NAMES = ("msvm-unet", "xlstm-unet")


def text_of(name):
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


COMMANDS = [
    line.strip() for name in NAMES for line in text_of(name).splitlines() if line.startswith("    scanseg ")
]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_understood(line):
    words = shlex.split(line)[1:]
    function, bound, _ = build_app().parse_args(words, print_error=False, exit_on_error=False)
    given = bound.arguments
    if function.__module__.endswith("cli.reproduce"):
        experiment = find_experiment(given["paper"], given["data"], num_axes=given.get("dims"))
        check_baselines(experiment, [name for name in given.get("baselines", "").split(",") if name])
        assert given["paper"] == "xlstm-unet" or given.get("from_scratch") or given.get("encoder_weights")
    elif words[0] == "compare" and words[1] != "list":
        assert given["comparison"] in ready_comparisons()
    elif words[0] == "plan":
        assert given["recipe"] in RECIPES


def test_the_pages_show_every_experiment_and_every_comparison():
    shown = [shlex.split(line) for line in COMMANDS]
    data = {(words[2], words[words.index("--data") + 1]) for words in shown if words[1] == "reproduce"}
    assert data >= {(one.paper, one.data) for one in EXPERIMENTS if one.data != "kvasir-seg"}
    assert {words[2] for words in shown if words[1] == "compare"} >= set(ready_comparisons())


@pytest.mark.parametrize("name", NAMES)
def test_every_field_of_the_network_that_is_named_is_there(name):
    from scanseg.specs import MSVMUNetSpec, XLSTMUNetSpec

    spec = {"msvm-unet": MSVMUNetSpec, "xlstm-unet": XLSTMUNetSpec}[name]
    fields = set(re.findall(r"`network\.(\w+)`", text_of(name)))
    assert len(fields) >= 3
    assert fields <= set(spec.model_fields)
