"""`scanseg compare`: a grid from its file to table and figure."""

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from statistics import mean, stdev

import pytest
import torch
from PIL import Image

from scanseg.experiments import comparison as comparison_module
from scanseg.experiments.comparison import ComparisonOptions, run_comparison
from scanseg.papers.ready_comparisons import ready_comparisons
from scanseg.planning import RECIPES
from scanseg.runtime import RunContext
from scanseg.settings import apply_settings
from scanseg.specs.records.comparison import ComparisonRecord, ComparisonSpec
from tests.factories import write_nested_boxes

from .conftest import SETTINGS

OPTIONS = ("--devices", "cpu", "--num-workers", 0)
ARMS = [
    {"name": "none", "settings": ["network.variant=bot", "network.sequence_block=none"]},
    {"name": "Bot / ViL", "settings": ["network.variant=bot"]},
]


@pytest.fixture
def comparison(tmp_path):
    """A comparison of two arms."""

    def write(**changes):
        content = {
            "title": "Blocks",
            "question": "Do they help?",
            "recipe": "xlstm-unet",
            "settings": [*SETTINGS, "training.epochs=1"],
            "arms": ARMS,
            "seeds": [0, 1],
            "folds": [0, 1],
        }
        path = tmp_path / "blocks.json"
        path.write_text(json.dumps({key: value for key, value in (content | changes).items() if value}))
        return path

    return write


def record_of(folder):
    return ComparisonRecord.read(folder / "comparison.json")


def test_every_arm_seed_and_fold(comparison, dataset, tmp_path, command):
    output = tmp_path / "out"
    outcome = command("compare", comparison(), dataset, "-o", output, *OPTIONS)

    assert outcome.code == 0, outcome.stderr
    record = record_of(output)
    assert record.missing == ()
    assert [arm.name for arm in record.arms] == ["none", "Bot / ViL"]
    for arm in record.arms:
        assert [(run.seed, run.fold) for run in arm.runs] == [(0, 0), (0, 1), (1, 0), (1, 1)]
        reports = [json.loads((output / run.model / "validation.json").read_text()) for run in arm.runs]
        dice = [report["summary"]["mean_over_labels"]["dice"] for report in reports]
        assert [run.mean_dice for run in arm.runs] == dice
        assert arm.mean_dice == pytest.approx(mean(dice))
        assert arm.std == pytest.approx(stdev(dice))
        assert arm.seed_std == pytest.approx(stdev([mean(dice[:2]), mean(dice[2:])]))
        seeds = [
            json.loads((output / run.model / "plan.json").read_text())["training"]["seed"] for run in arm.runs
        ]
        assert seeds == [0, 0, 1, 1]
    (found,) = record.comparisons
    assert (found.arm, found.baseline, found.num_cases) == ("Bot / ViL", "none", 4)
    assert found.gain == pytest.approx(record.arms[1].mean_dice - record.arms[0].mean_dice)
    assert found.p_corrected == found.p_value
    assert record.arms[1].num_parameters > record.arms[0].num_parameters
    text = (output / "comparison.md").read_text()
    assert "Bot / ViL against none:" in text
    assert "(too few cases for the test)" in text
    assert text.splitlines()[0] == "# Blocks"
    assert "Bot / ViL" in outcome.stdout
    with Image.open(output / "comparison.png") as picture:
        assert picture.width > 500
    assert (output / "comparison.csv").read_text().startswith("arm,trainings,")


BARE = """
import importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("SimpleITK", "PIL", "tifffile", "matplotlib", "monai"):
            raise ImportError(f"{name} is blocked by the test")

sys.meta_path.insert(0, Block())
from scanseg.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_it_is_prepared_here_cut_there_and_grows(comparison, dataset, tmp_path, command):
    output, path = tmp_path / "out", comparison(folds=[0], seeds=[0])
    prepared = command("compare", path, dataset, "-o", output, *OPTIONS, "--prepare")
    assert prepared.code == 0, prepared.stderr
    assert len(record_of(output).missing) == 2
    dataset.rename(tmp_path / "elsewhere")

    cut = command("compare", path, "-o", output, *OPTIONS, "--resume", "--stop-after-minutes", 0.00001)
    assert cut.code == 0, cut.stderr
    assert "Still missing: 2 trainings, next none, seed 0, fold 0" in cut.stdout
    # A machine without image libraries goes on with what was prepared.
    words = ["compare", path, "-o", output, *OPTIONS, "--resume"]
    done = subprocess.run(
        [sys.executable, "-c", BARE, *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert record_of(output).missing == ()
    weights = output / "none" / "seed_0_fold_0" / "model.safetensors"
    before = weights.stat().st_mtime_ns

    more = command(*words, "--seeds", "0,1")
    assert more.code == 0, more.stderr
    assert weights.stat().st_mtime_ns == before
    assert [len(arm.runs) for arm in record_of(output).arms] == [2, 2]
    other = command(*words, "--max-minutes", 3)
    assert other.code == 2
    assert "max_minutes is null, not 3.0" in other.stderr


@pytest.mark.slow
def test_devices_train_at_the_same_time(comparison, dataset, tmp_path, command):
    path, alone, spread = comparison(folds=[0]), tmp_path / "alone", tmp_path / "spread"
    assert command("compare", path, dataset, "-o", alone, *OPTIONS).code == 0
    words = ("compare", path, dataset, "-o", spread, "--devices", "cpu,cpu", "--num-workers", 0)
    cut = command(*words, "--stop-after-minutes", 0.03)  # less than a process needs to begin
    assert cut.code == 0, cut.stderr
    assert len(record_of(spread).missing) > 0

    outcome = command(*words, "--resume")

    assert outcome.code == 0, outcome.stderr
    for ours, theirs in zip(record_of(spread).arms, record_of(alone).arms, strict=True):
        assert [run.mean_dice for run in ours.runs] == [run.mean_dice for run in theirs.runs]


@pytest.mark.parametrize(
    ("options", "woken"),
    [(("--devices", "cpu"), torch.device("cpu")), (("--devices", "cpu", "--prepare"), None)],
)
def test_the_device_wakes_before_the_first_training(
    comparison, dataset, tmp_path, command, monkeypatch, options, woken
):
    seen = []

    @contextmanager
    def wake(device):
        yield
        seen.append(
            (device, len(list(tmp_path.glob("out/*/plan.json"))), len(list(tmp_path.rglob("run.json"))))
        )

    monkeypatch.setattr(comparison_module, "warm_up", wake)
    path = comparison(folds=[0], seeds=[0])
    outcome = command("compare", path, dataset, "-o", tmp_path / "out", "--num-workers", 0, *options)
    assert outcome.code == 0, outcome.stderr
    assert seen == [(woken, 2, 0)]


class KilledError(Exception):
    """Stands for a process that is killed."""


def test_a_training_that_was_killed_while_it_validated_is_not_done(comparison, dataset, tmp_path):
    spec = ComparisonSpec.read(comparison(folds=[0], seeds=[0]))
    output = tmp_path / "out"
    options = ComparisonOptions(devices=("cpu",))

    def progress(progress):
        if progress.task == "validating":
            raise KilledError

    with pytest.raises(KilledError):
        run_comparison(spec, dataset, output, options, context=RunContext(num_workers=0, progress=progress))
    assert not list(output.rglob("validation.json"))

    record = run_comparison(
        spec, None, output, replace(options, resume=True), context=RunContext(num_workers=0)
    )

    assert record.missing == ()
    assert [len(arm.runs) for arm in record.arms] == [1, 1]


EXPLODES = {"name": "explodes", "settings": ["training.optimizer.lr=1e30", "training.precision=float32"]}


@pytest.mark.parametrize("devices", ["cpu", "cpu,cpu"])
def test_after_a_failure_the_others_go_on_and_resume_trains_what_is_missing(
    comparison, dataset, tmp_path, command, devices
):
    output = tmp_path / "out"
    path = comparison(arms=[ARMS[0], EXPLODES, ARMS[1]], folds=[0], seeds=[0])
    words = ("compare", path, dataset, "-o", output, "--num-workers", 0)

    outcome = command(*words, "--devices", devices)

    assert outcome.code == 1
    assert "explodes, seed 0, fold 0" in outcome.stderr
    assert "the training loss is nan" in outcome.stderr or "the training loss is inf" in outcome.stderr
    assert "--resume trains the missing 1 of 3" in outcome.stderr
    record = record_of(output)
    assert [len(arm.runs) for arm in record.arms] == [1, 0, 1]
    assert record.missing == ("explodes, seed 0, fold 0",)
    assert record.comparisons[1].gain is not None
    assert "explodes against none: not trained yet" in (output / "comparison.md").read_text()

    done = [output / run.model / "model.safetensors" for arm in record.arms for run in arm.runs]
    before = [path.stat().st_mtime_ns for path in done]
    again = command(*words, "--devices", "cpu", "--resume")
    assert again.code == 1
    assert "explodes, seed 0, fold 0" in again.stderr
    assert "none, seed" not in again.stderr
    assert [path.stat().st_mtime_ns for path in done] == before


@pytest.mark.slow
def test_a_device_that_fails_twice_gets_no_more(comparison, dataset, tmp_path, command, monkeypatch):
    output = tmp_path / "out"
    words = ("compare", comparison(folds=[0], seeds=[0, 1, 2]), dataset, "-o", output, "--num-workers", 0)
    refused = command(*words, "--devices", "cpu,cuda:77")
    assert (refused.code, output.exists()) == (2, False)
    assert "device 'cuda:77' is not available" in refused.stderr
    monkeypatch.setattr(comparison_module, "require_devices", lambda devices: None)  # lost on the way, say

    outcome = command(*words, "--devices", "cuda:77,cuda:78")

    assert outcome.code == 1
    for device in ("cuda:77", "cuda:78"):
        assert outcome.stderr.count(f"on {device}: device '{device}' is not available") == 2
        assert f"{device} got no more jobs after two failures in a row" in outcome.stderr
    assert "--resume trains the missing 6 of 6" in outcome.stderr
    done = command(*words, "--devices", "cpu", "--resume")
    assert done.code == 0, done.stderr
    assert record_of(output).missing == ()


def test_a_grid_is_written_out(comparison, dataset, tmp_path, command):
    path = comparison(
        arms=None,
        grid={"network.variant": ["bot", "enc"], "training.optimizer.lr": [0.01, 0.001]},
        folds=[0],
        seeds=[0],
        baseline='variant="enc", lr=0.01',
    )
    outcome = command("compare", path, dataset, "-o", tmp_path / "out", *OPTIONS)

    assert outcome.code == 0, outcome.stderr
    record = record_of(tmp_path / "out")
    assert [arm.name for arm in record.arms] == [
        f'variant="{variant}", lr={lr}' for variant in ("bot", "enc") for lr in (0.01, 0.001)
    ]
    assert len(record.comparisons) == 3
    for arm in record.arms:
        plan = json.loads((tmp_path / "out" / arm.runs[0].model / "plan.json").read_text())
        assert f'"{plan["network"]["variant"]}", lr={plan["training"]["optimizer"]["lr"]}' in arm.name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": None}, "either arms or a grid"),
        ({"arms": ARMS[:1]}, "expected at least two with different names"),
        ({"baseline": "best"}, "baseline: expected one of none, Bot / ViL, got 'best'"),
        ({"seeds": [1, 1]}, "seeds: expected different numbers"),
        ({"folds": [7]}, "fold 7 does not exist"),
        ({"settings": ["network.depth=3"]}, "network has no 'depth'"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_trains(
    comparison, dataset, tmp_path, command, changes, message
):
    outcome = command("compare", comparison(**changes), dataset, "-o", tmp_path / "out", *OPTIONS)
    assert outcome.code in (1, 2)
    assert message in outcome.stderr
    assert not list(tmp_path.glob("out/**/run.json"))


def test_some_arms_alone(comparison, dataset, tmp_path, command):
    third = {"name": "Enc", "settings": ["network.variant=enc"]}
    words = (
        "compare",
        comparison(arms=[*ARMS, third]),
        dataset,
        "-o",
        tmp_path / "out",
        *OPTIONS,
        "--prepare",
    )
    outcome = command(*words, "--arms", "none,Enc")
    assert outcome.code == 0, outcome.stderr
    assert [arm.name for arm in record_of(tmp_path / "out").arms] == ["none", "Enc"]
    refused = command(*words, "--arms", "Enc,Bot")
    assert refused.code == 2
    assert "choose at least two of none; Bot / ViL; Enc, with the baseline none among them" in refused.stderr


def test_unknown_names_are_refused_with_the_known(tmp_path, command):
    outcome = command("compare", "u-net", tmp_path, "-o", tmp_path / "out")
    assert outcome.code == 2
    assert "expected a file or one of msvm-unet-decoder" in outcome.stderr


def test_ready_comparisons_are_listed_shown_and_fit_their_recipes(dataset, tmp_path, command):
    ready = ready_comparisons()
    listed = command("compare", "list")
    assert all(name in listed.stdout for name in ready)
    import scanseg

    volumes = write_nested_boxes(tmp_path / "boxes", num_cases=3)
    datasets = {name: volumes if name == "neighbour-slices" else dataset for name in ready}
    plans = {
        (source, recipe): scanseg.make_plan(source, recipe=recipe, num_workers=0)
        for source, recipe in {
            (datasets[name], arm.recipe or spec.recipe)
            for name, spec in ready.items()
            for arm in spec.all_arms
        }
    }
    for name, spec in ready.items():
        shown = command("compare", "show", name)
        assert ComparisonSpec.model_validate_json(shown.stdout) == spec
        assert spec.recipe in RECIPES
        changed = [
            apply_settings(plans[datasets[name], arm.recipe or spec.recipe], (*spec.settings, *arm.settings))
            for arm in spec.all_arms
        ]
        of_recipes = name in ("msvm-unet-tuned", "networks-2d", "pictures", "neighbour-slices")
        different = {(plan if of_recipes else plan.network).to_json() for plan in changed}
        assert len(different) == len(changed)
