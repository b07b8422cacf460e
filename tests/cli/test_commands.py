"""Each command makes one call of the Python API and shows its result."""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch

from scanseg.cli.console import format_memory
from scanseg.cli.options import Recipe
from scanseg.errors import UsageError
from scanseg.messages import format_duration
from scanseg.progress import ProgressUpdate
from scanseg.specs import (
    MSVMUNetSpec,
    Plan,
    SamplingSpec,
)
from scanseg.training import StepTiming
from tests.factories import make_plan


@dataclass
class Call:
    """A function that records its arguments."""

    result: Any
    arguments: tuple[Any, ...] = ()
    options: dict[str, Any] | None = None

    def __call__(self, *arguments: Any, progress: Any, **options: Any) -> Any:
        self.arguments, self.options = arguments, options
        return self.result


TIMING = StepTiming("cpu (2 threads)", 0.25, 2.0**30, 2**33)


@pytest.fixture(autouse=True)
def _cases_and_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace reading the data set of `scanseg plan`, which the tests lack."""
    module = sys.modules["scanseg.cli.plan"]
    monkeypatch.setattr(module, "_describe_data", lambda dataset: [("cases", "5"), ("folds", "5 (drawn)")])


@pytest.fixture
def plan() -> Plan:
    return make_plan(
        MSVMUNetSpec(),
        patch_size=(64, 96),
        recipe="msvm-unet",
        preprocessing={"slice_size": (64, 96)},
        sampling=SamplingSpec(patch_size=(64, 96), batch_size=2, order="every-slice"),
    )


def test_check_shows_the_report(command, fake_api) -> None:
    fake_api.check = Call(SimpleNamespace(lines=lambda: ["2 cases", "[0, 1] labels"]))
    outcome = command("check", "folder")
    assert (outcome.code, outcome.stdout.splitlines()[:-1]) == (0, ["2 cases", "[0, 1] labels"])
    assert outcome.stderr == "checking folder\n"
    assert fake_api.check.arguments == (Path("folder"),)


def test_check_shows_warnings_on_stderr(command, fake_api) -> None:
    lines = ["2 cases", "warning: a", "warning: b", "and 3 more"]
    fake_api.check = Call(SimpleNamespace(lines=lambda: lines))
    outcome = command("check", "folder")
    assert outcome.stdout.splitlines()[:-1] == ["2 cases"]
    assert outcome.after_start == "warning: a\nwarning: b\nand 3 more\n"


@pytest.mark.parametrize(
    ("has_gpu", "options"), [(False, " --recipe xlstm-unet-fast --max-minutes 2"), (True, "")]
)
def test_check_ends_with_the_command_that_trains(
    command, fake_api, monkeypatch: pytest.MonkeyPatch, has_gpu: bool, options: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    fake_api.check = Call(SimpleNamespace(lines=lambda: ["2 cases"]))
    outcome = command("check", "my set")
    assert outcome.stdout == f"2 cases\nto train:  scanseg train 'my set' -o MODEL{options}\n"


def test_warnings_of_a_call_are_shown_once(command, fake_api, plan: Plan, tmp_path: Path) -> None:
    def make_plan(*arguments: Any, progress: Any, **options: Any) -> Plan:
        for _ in range(2):
            progress(ProgressUpdate("checking", 1, 1, warnings=("a file is left out", "b")))
        return plan

    fake_api.make_plan, fake_api.time_step = make_plan, Call(TIMING)
    outcome = command("plan", "folder", "-o", tmp_path / "plan.json")
    assert outcome.after_start == "warning: a file is left out\nwarning: b\n"
    lines = [line.partition(":")[0] for line in outcome.stdout.splitlines()]
    assert lines[-4:] == ["mirroring", "sides", "normalization", "to train"]


def test_plan_writes_a_document(command, fake_api, plan: Plan, tmp_path: Path) -> None:
    fake_api.make_plan, fake_api.time_step = Call(plan), Call(TIMING)
    output = tmp_path / "plans" / "plan.json"
    outcome = command(
        "plan", "folder", "--recipe", "msvm-unet", "-o", output, "--set", "a.b=[1, 2]", "--set", "c=x"
    )
    assert outcome.code == 0
    assert Plan.read(output) == plan
    assert "64 x 96" in outcome.stdout
    assert re.search(r"GPU memory of a step +about \d+(\.\d GiB| MiB) *\n", outcome.stdout)
    assert fake_api.make_plan.arguments == (Path("folder"),)
    assert fake_api.make_plan.options == {
        "recipe": "msvm-unet",
        "size": None,
        "device": "auto",
        "like": None,
        "settings": ("a.b=[1, 2]", "c=x"),
        "num_workers": None,
    }


def test_suggested_commands_are_quoted_for_a_shell(command, fake_api, plan: Plan, tmp_path: Path) -> None:
    fake_api.make_plan, fake_api.time_step = Call(plan), Call(TIMING)
    output = tmp_path / "my plans" / "p.json"
    assert command("plan", "folder", "-o", output).stdout.endswith(
        f"to train:  scanseg train '{output}' -o MODEL\n"
    )
    fake_api.preprocess = Call(tmp_path / "s")
    outcome = command("preprocess", "my set", "--store", "s")
    assert outcome.stdout.endswith("to train:  scanseg train 'my set' -o MODEL --store s\n")


def test_train_passes_only_given_options(command, fake_api) -> None:
    fake_api.report = Call(None)
    fake_api.train = Call(
        SimpleNamespace(
            model=Path("m"),
            epochs_done=3,
            seconds=3725.0,
            scores={"disk": 0.5, "hole": None},
            mean_dice=0.5,
            renewed_parameters=(),
            is_main_process=True,
            was_finished=False,
        )
    )
    outcome = command("train", "plan.json", "-o", "m")
    assert fake_api.train.arguments == (Path("plan.json"), Path("m"))
    absent = (
        *(
            "recipe",
            "size",
            "fold",
            "initial_weights",
            "encoder_weights",
            "epochs",
            "max_minutes",
            "batch_size",
            "lr",
            "seed",
            "store",
        ),
        *("precision", "num_workers"),
    )
    assert fake_api.train.options == {
        **dict.fromkeys(absent),
        "device": "auto",
        "resume": False,
        "keep_predictions": False,
        "settings": (),
    }
    assert [line.split() for line in outcome.stdout.splitlines() if line.strip(" ─-")] == [
        ["label", "validation", "Dice"],
        ["disk", "0.5000"],
        ["hole", "-"],
        ["mean", "0.5000"],
        ["m:", "3", "epochs", "in", "1:02:05"],
        ["report:", "m/report.html"],
        ["to", "predict:", "scanseg", "predict", "m", "IMAGES", "-o", "OUTPUT"],
    ]
    command(
        *(
            "train",
            "folder",
            "-o",
            "m",
            "--recipe",
            "xlstm-unet",
            "--fold",
            "all",
            "--epochs",
            7,
            "--lr",
            1e-3,
        ),
        *(
            "--max-minutes",
            1.5,
            "--batch-size",
            4,
            "--seed",
            5,
            "--device",
            "cpu",
            "--resume",
            "--store",
            "s",
        ),
        *("--set", "network.variant=bot", "--num-workers", 0),
    )
    assert fake_api.train.options == {
        "recipe": "xlstm-unet",
        "size": None,
        "fold": "all",
        "epochs": 7,
        "max_minutes": 1.5,
        "batch_size": 4,
        "lr": 1e-3,
        "seed": 5,
        "device": "cpu",
        "resume": True,
        "keep_predictions": False,
        "initial_weights": None,
        "encoder_weights": None,
        "precision": None,
        "store": Path("s"),
        "settings": ("network.variant=bot",),
        "num_workers": 0,
    }


def test_a_fold_is_a_number(command, fake_api) -> None:
    fake_api.report = Call(None)
    fake_api.train = Call(
        SimpleNamespace(
            model=Path("m"),
            epochs_done=1,
            seconds=1.0,
            scores={},
            mean_dice=None,
            renewed_parameters=("head.weight",),
            is_main_process=True,
            was_finished=False,
        )
    )
    outcome = command("train", "folder", "-o", "m", "--fold", "3", "--initial-weights", "other")
    assert fake_api.train.options["fold"] == 3
    assert fake_api.train.options["initial_weights"] == Path("other")
    assert outcome.stdout.splitlines() == [
        "note: labels differ from other. Initialized again: 1 tensor of the head",
        "m: 1 epoch in 0:00:01",
        "report: m/report.html",
        "to predict:  scanseg predict m IMAGES -o OUTPUT",
    ]


def test_a_training_without_its_report_succeeds(command, fake_api) -> None:
    result = SimpleNamespace(
        model=Path("m"),
        epochs_done=1,
        seconds=1.0,
        scores={},
        mean_dice=None,
        renewed_parameters=(),
        is_main_process=True,
        was_finished=False,
    )
    fake_api.train = Call(result)

    def report(*arguments: Any, **options: Any) -> None:
        raise UsageError("report: expected jinja2")

    fake_api.report = report
    outcome = command("train", "folder", "-o", "m")
    assert outcome.code == 0
    assert "note: no report. report: expected jinja2\n" in outcome.stdout
    fake_api.report = Call(None)
    assert "report" not in command("train", "folder", "-o", "m", "--no-report").stdout
    assert fake_api.report.options is None


def test_report_passes_folders(command, fake_api, tmp_path: Path) -> None:
    fake_api.report = Call(None)
    output = tmp_path / "new" / "report.html"
    words = ("--references", "labels", "--images", "images", "--num-workers", 0)
    outcome = command("report", "predictions", "-o", output, *words)
    assert outcome.stdout == f"report: {output}\n"
    assert fake_api.report.arguments == (Path("predictions"), output)
    assert fake_api.report.options == {
        "references": Path("labels"),
        "images": Path("images"),
        "device": "auto",
        "num_workers": 0,
        "instances": None,
        "iou": 0.5,
        "border": 2,
    }
    output.parent.mkdir()
    output.write_text("older")
    assert "already exists" in command("report", "predictions", "-o", output).stderr


def test_show_passes_numbers(command, fake_api, tmp_path: Path) -> None:
    calls = []
    fake_api.show = lambda *arguments, **options: calls.append((arguments, options)) or "three planes"
    output = tmp_path / "a.png"
    words = ("--at", "1,2,3", "--window", "-160,240", "--labels", "liver=1", "--slices", 9)
    outcome = command("show", "image.nii.gz", "labels.nii.gz", "-o", output, *words)
    assert (outcome.code, outcome.stdout) == (0, f"{output}: three planes\n")
    ((arguments, options),) = calls
    assert arguments == (Path("image.nii.gz"), output)
    assert (options["at"], options["window"], options["num_slices"]) == ((1, 2, 3), (-160.0, 240.0), 9)
    assert (options["label_map"], options["labels"]) == (Path("labels.nii.gz"), "liver=1")


@pytest.mark.parametrize("words", [("--at", "1,2"), ("--window", "1"), ("--window", "a,b")])
def test_show_refuses_other_numbers(command, fake_api, tmp_path: Path, words: tuple[str, str]) -> None:
    outcome = command("show", "image.nii.gz", "-o", tmp_path / "a.png", *words)
    assert outcome.code == 2
    assert f"{words[0]} {words[1]}: expected" in outcome.stderr


def test_predict_segments_a_folder(command, fake_api) -> None:
    cases = [
        SimpleNamespace(case=name, label_map=f"{name}.nii.gz", seconds=1.6, skipped=False, warning=warning)
        for name, warning in (("a", None), ("b", "its spacing is strange"))
    ]
    predict_folder = Call(
        SimpleNamespace(cases=cases, seconds=3.2, device="cuda:1 (a GPU)", warnings=("1 file skipped",))
    )
    devices = []

    def load(model: str, **options: str | None) -> SimpleNamespace:
        devices.append((model, *options.values()))
        return SimpleNamespace(predict_folder=predict_folder, plan=plan_of_labels("disc"))

    fake_api.load = load
    outcome = command(
        "predict", "m", "in", "more", "-o", "out", "--mirror", "--device", "cuda:1", "--precision", "float32"
    )
    assert outcome.code == 0
    assert devices == [("m", "cuda:1", "exported", "float32", None)]
    assert predict_folder.arguments == ((Path("in"), Path("more")), Path("out"))
    assert predict_folder.options == {
        "mirror": True,
        "probabilities": False,
        "uncertainty": False,
        "overwrite": False,
        "skip_existing": False,
        "format": None,
        "series": (),
        "segment_codes": None,
        "pictures": False,
    }
    assert "b.nii.gz" in outcome.stdout
    assert outcome.after_start == "warning: 1 file skipped\nwarning: case b: its spacing is strange\n"
    assert outcome.stdout.endswith("\nout: 2 label maps in 0:00:03 on cuda:1 (a GPU)\n")


def test_predict_names_the_pictures_in_colours(command, fake_api, tmp_path) -> None:
    (tmp_path / "colours").mkdir()
    record = SimpleNamespace(cases=[], seconds=1.0, device="cpu", warnings=())
    predictor = SimpleNamespace(predict_folder=Call(record), plan=plan_of_labels("disc"))
    fake_api.load = lambda model, **options: predictor
    outcome = command("predict", "m", "in", "-o", tmp_path)
    assert outcome.stdout.endswith(f"\nin colours, to look at: {tmp_path / 'colours'}\n")


def test_predict_names_the_command_that_numbers_instances(command, fake_api) -> None:
    record = SimpleNamespace(cases=[], seconds=1.0, device="cpu", warnings=())
    predictor = SimpleNamespace(predict_folder=Call(record), plan=plan_of_labels("interior", "boundary"))
    fake_api.load = lambda model, **options: predictor
    outcome = command("predict", "m", "in", "-o", "out")
    assert outcome.stdout.endswith(
        "\nto number the instances:  scanseg data instances out -o out-instances\n"
    )


def plan_of_labels(*names: str) -> SimpleNamespace:
    labels = {name: (number,) for number, name in enumerate(names, start=1)}
    return SimpleNamespace(dataset=SimpleNamespace(foreground=labels))


def test_demo_compares_the_networks_with_thresholds(command, fake_module) -> None:
    module = fake_module("demo")
    module.run = Call(
        SimpleNamespace(
            network_dice={
                "msvm-unet": {"grey": 0.81, "white": None},
                "xlstm-unet": {"grey": 0.91, "white": 0.92},
            },
            threshold_dice={"grey": 0.7, "white": 0.8},
            label_maps=Path("d/predictions"),
            picture=Path("d/picture.png"),
            seconds=61.0,
        )
    )
    outcome = command("demo", "-o", "d")
    assert module.run.options == {"recipe": None, "output": Path("d"), "device": "cpu"}
    shown = [line.split() for line in outcome.stdout.splitlines()]
    assert ["xlstm-unet", "0.9100", "0.9200"] in shown
    assert shown.index(["msvm-unet", "0.8100", "-"]) < shown.index(["xlstm-unet", "0.9100", "0.9200"])
    assert ["best", "thresholds", "0.7000", "0.8000"] in shown
    assert ["picture:", "d/picture.png"] in shown


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00:00"), (59.6, "0:01:00"), (3599.7, "1:00:00"), (360000, "100:00:00")]
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 MiB"), (40 * 2**20, "40 MiB"), (1023.6 * 2**20, "1.0 GiB"), (1.75 * 2**30, "1.8 GiB")],
)
def test_memory_sizes(num_bytes: float, text: str) -> None:
    assert format_memory(num_bytes) == text


def test_recipes_equal_the_names_in_planning() -> None:
    from scanseg.planning import RECIPES

    assert get_args(Recipe) == tuple(RECIPES)


def test_info_as_text_and_as_json(command) -> None:
    outcome = command("info", "--json")
    assert outcome.code == 0
    facts = json.loads(outcome.stdout)
    described = {"commands", "formats", "models", "networks", "recipes", "extras"}
    assert set(facts) == {"versions", "devices", "backends", "kernel_checks"} | described
    assert {"train", "predict", "export monai"} <= set(facts["commands"])
    assert {"names", "help", "required"} <= set(facts["commands"]["train"]["arguments"][0])
    assert "cpu" in facts["devices"]
    assert {"msvm-unet", "xlstm-unet"} <= set(facts["networks"])
    assert {"selective_scan", "ss2d_scan", "mlstm"} <= {row["operator"] for row in facts["backends"]}
    assert facts["extras"]["demo"]["install"] == 'pip install "scanseg[demo]"'
    text = command("info").stdout
    for name in (*facts["versions"].values(), *facts["networks"], *facts["recipes"], *facts["extras"]):
        assert name in text


def test_crossval_passes_devices_and_recipes(command, fake_api) -> None:
    fake_api.report = Call(None)
    dice = {"disk": 0.5, "hole": None}
    outcome_of_recipe = SimpleNamespace(
        name="xlstm-unet",
        labels=dice,
        mean_dice=0.5,
        postprocessed_labels=dice | {"disk": 0.625},
        postprocessed_mean_dice=0.625,
        postprocessing=SimpleNamespace(largest_foreground=True, largest_component=("disk",)),
    )
    record = SimpleNamespace(
        configurations=(outcome_of_recipe,), outcomes=(outcome_of_recipe,), chosen="xlstm-unet"
    )
    fake_api.cross_validate = Call(SimpleNamespace(record=record))

    outcome = command(
        "crossval", "folder", "-o", "folds", "--recipe", "xlstm-unet", "--devices", "cuda:0, cuda:1"
    )

    assert outcome.code == 0, outcome.stderr
    assert fake_api.cross_validate.options["devices"] == ["cuda:0", "cuda:1"]
    assert fake_api.cross_validate.options["recipes"] == ("xlstm-unet",)
    assert fake_api.cross_validate.options["ensembles"] is True
    assert fake_api.cross_validate.options["max_minutes"] is None
    assert fake_api.cross_validate.options["batch_size"] is None
    lines = [line.split() for line in outcome.stdout.splitlines() if line.strip(" ─-")]
    assert lines[1:4] == [["disk", "0.5000", "0.6250"], ["hole", "-", "-"], ["mean", "0.5000", "0.6250"]]
    assert "xlstm-unet: only the largest component is kept of all foreground, disk" in outcome.stdout
    assert fake_api.report.arguments == (Path("folds"), Path("folds/report.html"))
    command("crossval", "folder", "-o", "folds", "--no-ensembles", "--max-minutes", 1.5, "--batch-size", 4)
    assert fake_api.cross_validate.options["ensembles"] is False
    assert fake_api.cross_validate.options["max_minutes"] == 1.5
    assert fake_api.cross_validate.options["batch_size"] == 4


def test_warm_up_reports_kernels(command, fake_api) -> None:
    calls = []

    def warm_up(plan, **options):
        calls.append((plan, options["purpose"], options["device"]))
        return SimpleNamespace(purposes=("training",), num_kernels=76, seconds=12.0, device="cuda:0 (H200)")

    fake_api.warm_up = warm_up
    outcome = command("warm-up", "plan.json", "--for", "training", "--device", "cuda")
    assert outcome.code == 0
    assert outcome.stdout == "plan.json: 76 kernels for training in 12 s on cuda:0 (H200)\n"
    assert calls == [(Path("plan.json"), "training", "cuda")]
