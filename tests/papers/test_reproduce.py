"""`scanseg reproduce --quick`, from a source as people have it to the table."""

import csv
import json
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from scanseg.converters import NAMED_DATASETS
from scanseg.errors import ScansegError
from scanseg.experiments import TrainingJob
from scanseg.models import check_network
from scanseg.networks import MSVMUNet
from scanseg.papers.experiments import EXPERIMENTS, find_experiment, published_results, results_of
from scanseg.papers.protocols import baseline_plan
from scanseg.planning import replace_patch
from scanseg.planning.recipes import plan_recipe as make_plan
from scanseg.specs import CaseMeasures, Fingerprint, IntensityStatistics
from scanseg.specs.records.reproduction import Reproduction
from tests import factories

QUICK = ("--quick", "--device", "cpu", "--num-workers", 0)


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


def table_of(output):
    return Reproduction.read(output / "table.json")


def methods(table, origin="here"):
    return [(row.method, row.checkpoint) for row in table.rows if row.origin == origin]


def test_msvm_unet_as_published(acdc, tmp_path, command):
    output = tmp_path / "acdc"
    words = ("reproduce", "msvm-unet", acdc, "--data", "acdc", "--protocol", "published", "--from-scratch")

    outcome = command(*words, *QUICK, "--baselines", "plain-unet,no-sequence", "-o", output)

    assert outcome.code == 0, outcome.stderr
    table = table_of(output)
    assert (table.rule, table.distance_unit, table.train_cases) == ("transunet", "voxels", 8)
    assert table.scored == "4 test cases"
    assert table.missing == ()
    assert methods(table) == [
        (method, weights)
        for method in ("msvm-unet", "plain-unet", "no-sequence")
        for weights in ("last", "best on the scored cases")
    ]
    ours = table.rows[0]
    assert ours.seeds == (0,)
    assert set(ours.labels) == {"RV", "myocardium", "LV"}
    published = [row for row in table.rows if row.origin == "published"]
    assert [row.method for row in published] == ["MSVM-UNet", "VM-UNet"]
    assert published[0].measures["dice"].mean == 0.9258
    assert published[0].labels["LV"].mean == 0.9639
    plan = json.loads((output / "plan.json").read_text())
    assert plan["training"]["optimizer"]["decay_all"]
    assert plan["training"]["frozen_encoder_epochs"] == 0
    assert plan["training"]["early_stop"] == {
        "measure": "loss",
        "patience_epochs": 15,
        "least_improvement": 0.0,
    }
    assert (plan["inference"]["slice_resampling"], plan["training"]["precision"]) == ("labels", "float32")

    # What is printed and what is written are the same table, and say how it came about.
    with (output / "table.csv").open() as stream:
        rows = list(csv.reader(stream))
    assert rows[0][:4] == ["method", "from", "weights", "seeds"]
    assert rows[7][:5] == ["MSVM-UNet", "published", "as published", "", "92.58"]
    for text in (outcome.stdout, *((output / f"table.{ending}").read_text() for ending in ("md", "html"))):
        assert "92.58" in text
        assert "Rule transunet" in text
        assert "Encoder of MSVM-UNet: from scratch" in text
        assert "best on the scored cases" in text


def test_the_reports_behind_the_table_are_its_means(acdc, tmp_path, command):
    output = tmp_path / "acdc"
    outcome = command(
        "reproduce",
        "msvm-unet",
        acdc,
        "--data",
        "acdc",
        "--from-scratch",
        "--seeds",
        "0,1",
        *QUICK,
        "-o",
        output,
    )

    assert outcome.code == 0, outcome.stderr
    table = table_of(output)
    assert (table.rule, table.distance_unit) == ("skip", "mm")
    row = table.rows[0]
    (weights,) = {path.name for path in (output / "msvm-unet").glob("seed_*/test-*.json")}
    reports = [json.loads((output / "msvm-unet" / f"seed_{seed}" / weights).read_text()) for seed in (0, 1)]
    dice = [report["summary"]["mean_over_labels"]["dice"] for report in reports]
    assert row.measures["dice"].mean == pytest.approx(sum(dice) / 2)
    assert row.measures["dice"].std == pytest.approx(abs(dice[0] - dice[1]) / 2**0.5)
    assert [len(report["cases"]) for report in reports] == [4, 4]
    assert {case["case"][:10] for case in reports[0]["cases"]} == {"patient002", "patient003"}
    run = json.loads((output / "msvm-unet" / "seed_0" / "run.json").read_text())
    assert row.checkpoint == "best on validation"
    assert {case[:10] for case in run["validation_cases"]} == {"patient019"}


def test_it_can_be_cut_and_goes_on(acdc, tmp_path, command):
    output = tmp_path / "acdc"
    words = (
        "reproduce",
        "msvm-unet",
        "--data",
        "acdc",
        "--from-scratch",
        "--seeds",
        "0",
        *QUICK,
        "-o",
        output,
    )
    prepared = command(*words[:2], acdc, *words[2:], "--prepare")
    assert prepared.code == 0, prepared.stderr
    assert table_of(output).missing == ("msvm-unet seed 0",)
    acdc.rename(tmp_path / "elsewhere")  # what follows needs the output alone
    (output / "dataset").rename(tmp_path / "raw")

    begin = time.monotonic()
    cut = command(*words, "--resume", "--stop-after-minutes", 0.00001)
    assert cut.code == 0, cut.stderr
    assert time.monotonic() - begin < 60
    assert "Still missing: msvm-unet seed 0" in cut.stdout
    # A machine without image libraries goes on with what was prepared.
    done = subprocess.run(
        [sys.executable, "-c", BARE, *map(str, words), "--resume"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert table_of(output).missing == ()
    weights = output / "msvm-unet" / "seed_0" / "model.safetensors"
    before = weights.stat().st_mtime_ns

    more = command(*words, "--resume", "--baselines", "no-sequence")
    assert more.code == 0, more.stderr
    assert weights.stat().st_mtime_ns == before
    assert {row.method for row in table_of(output).rows if row.origin == "here"} == {
        "msvm-unet",
        "no-sequence",
    }

    # Scores of other weights are made again, and others are kept.
    (path,) = weights.parent.glob("test-*.json")
    (sources,) = weights.parent.glob("sources-*.json")
    expected = path.read_text()
    path.write_text(expected.replace('"dice"', '"dice" '))
    assert command(*words, "--resume").code == 0
    assert path.read_text() != expected
    record = json.loads(sources.read_text())
    record["weights"] |= {"modified_nanoseconds": 0, "sha256": "0" * 64}
    sources.write_text(json.dumps(record))
    assert command(*words, "--resume").code == 0
    assert path.read_text() == expected

    for options, difference in {
        ("--protocol", "published"): "protocol is held-out, not published",
        ("--set", "training.epochs=9"): "training.epochs is 2, not 9",
        ("--max-minutes", "0.5"): "training.max_minutes is null, not 0.5",
    }.items():
        other = command(*words, "--resume", *options)
        assert other.code == 2
        assert difference in other.stderr
    assert command(*words).code == 2


@pytest.mark.parametrize(("dims", "variant"), [(2, "bot"), (3, "enc")])
def test_xlstm_unet_on_volumes(amos, tmp_path, command, dims, variant):
    output = tmp_path / "amos"
    outcome = command(
        *("reproduce", "xlstm-unet", amos, "--data", "abdomen-mr", "--dims", dims, "--variant", variant),
        *("--protocol", "published", "--optimizer", "adamw", "--baselines", "mamba", *QUICK, "-o", output),
    )

    assert outcome.code == 0, outcome.stderr
    table = table_of(output)
    assert table.rule == "umamba"
    assert "the source has no test cases" in table.scored
    assert methods(table) == [("xlstm-unet", "last"), ("mamba", "last")]
    own = [row.method for row in table.rows if row.method.startswith("xLSTM-UNet")]
    assert own == ([f"xLSTM-UNet {variant.capitalize()}"] if dims == 2 else [])
    plan = json.loads((output / "plan.json").read_text())
    assert plan["network"]["variant"] == variant
    assert plan["training"]["optimizer"]["weight_decay"] == 0.05
    assert len(plan["sampling"]["patch_size"]) == dims
    report = json.loads((output / "xlstm-unet" / "seed_0" / "test-last.json").read_text())
    assert report["tolerances_mm"]["duodenum"] == 7.0


def test_with_held_out_cases_nothing_is_chosen_on_the_cases_that_are_scored(amos, tmp_path, command):
    output = tmp_path / "amos"
    outcome = command(
        *("reproduce", "xlstm-unet", amos, "--data", "abdomen-mr", "--dims", 2, "--seeds", 0),
        *(*QUICK, "--prepare", "-o", output),
    )
    assert outcome.code == 0, outcome.stderr
    assert json.loads((output / "plan.json").read_text())["training"]["export"] == "last"
    setup = json.loads((output / "setup.json").read_text())
    assert setup["chosen_on_scored"]
    assert "validation cases" in setup["scored"]


def test_networks_with_attention_get_adamw_in_place_of_sgd():
    plan = factories.make_plan(patch_size=(64, 64))
    kinds = {
        name: baseline_plan(plan, name).training.optimizer.kind
        for name in ("plain-unet", "residual-unet", "dynunet", "segresnet", "unetr", "swin-unetr")
    }
    assert {name for name, kind in kinds.items() if kind == "adamw"} == {"segresnet", "unetr", "swin-unetr"}


def test_xlstm_unet_on_cells_scores_instances_of_all_baselines(cells, tmp_path, command):
    pytest.importorskip("monai", reason='pip install "scanseg[baselines]"')
    output = tmp_path / "cells"
    outcome = command(
        *("reproduce", "xlstm-unet", cells, "--data", "dsb2018", "--seeds", "0", "--baselines", "all"),
        *(*QUICK, "-o", output),
    )

    assert outcome.code == 0, outcome.stderr
    table = table_of(output)
    assert table.scored == "2 test cases"
    here = {row.method for row in table.rows if row.origin == "here"}
    assert here == {"xlstm-unet", *find_experiment("xlstm-unet", "dsb2018").baselines}
    assert len({row.parameters for row in table.rows}) > 6
    optimizers = {
        name: json.loads((output / name / "seed_0" / "plan.json").read_text())["training"]["optimizer"][
            "kind"
        ]
        for name in here
    }
    assert set(optimizers.values()) == {"adamw"}, "the recipe of pictures trains by AdamW"
    assert "No published rows" in outcome.stdout
    assert "F1 of instances (%)" in (output / "table.md").read_text()
    (report,) = (output / "xlstm-unet" / "seed_0").glob("test-*-instances.json")
    content = json.loads(report.read_text())
    assert len(content["cases"]) == 2
    found = content["summary"]["f1"]["mean"]
    assert (
        table.rows[0].measures.get("f1") is None
        if found is None
        else table.rows[0].measures["f1"].mean == found
    )


def test_msvm_unet_does_not_train_from_scratch_in_silence(acdc, tmp_path, command):
    words = ("reproduce", "msvm-unet", acdc, "--data", "acdc", "-o", tmp_path / "out")
    silent = command(*words)
    assert silent.code == 2
    assert "--encoder-weights, or pass --from-scratch" in silent.stderr
    missing = command(*words, "--encoder-weights", tmp_path / "vssm1_tiny.pth")
    assert missing.code == 1
    assert "no such file" in missing.stderr
    both = command(*words, "--encoder-weights", acdc, "--from-scratch")
    assert both.code == 2
    assert "exclude each other" in both.stderr
    assert not (tmp_path / "out").exists()


def test_the_encoder_begins_with_imagenet_weights_and_rests(acdc, tmp_path, command):
    encoder = MSVMUNet(3, 2).encoder.state_dict()
    save_file(encoder, tmp_path / "encoder.safetensors")
    output = tmp_path / "out"
    settings = ("sampling.patch_size=[32, 32]", "preprocessing.slice_size=[32, 32]", "training.epochs=1")
    words = [word for setting in settings for word in ("--set", setting)]

    outcome = command(
        *("reproduce", "msvm-unet", acdc, "--data", "acdc", "--seeds", "3", "--device", "cpu"),
        *("--encoder-weights", tmp_path / "encoder.safetensors", "--num-workers", 0, *words, "-o", output),
    )

    assert outcome.code == 0, outcome.stderr
    assert f"ImageNet weights {tmp_path / 'encoder.safetensors'}" in outcome.stdout
    trained = load_file(output / "msvm-unet" / "seed_3" / "model.safetensors")
    assert all(torch.equal(trained[f"encoder.{name}"], value) for name, value in encoder.items())
    begun = load_file(output / "msvm-unet" / "seed_3-initial" / "model.safetensors")
    assert not torch.equal(trained["decoder.classify.weight"], begun["decoder.classify.weight"])
    other = command(
        *("reproduce", "msvm-unet", "--data", "acdc", "--seeds", "3", "--device", "cpu", "--resume"),
        *("--from-scratch", "--num-workers", 0, *words, "-o", output),
    )
    assert other.code == 2
    assert "encoder.safetensors, not from scratch" in other.stderr


def test_the_table_is_written_if_a_training_fails(acdc, tmp_path, command, monkeypatch):
    def fail(job, context):
        if "seed 1" in job.name:
            raise ScansegError("no luck")
        return run(job, context)

    run = TrainingJob.run
    monkeypatch.setattr(TrainingJob, "run", fail)
    output = tmp_path / "out"
    words = ("--data", "acdc", "--from-scratch", "--seeds", "0,1", *QUICK, "-o", output)
    outcome = command("reproduce", "msvm-unet", acdc, *words)
    assert outcome.code == 1
    assert "msvm-unet seed 1: no luck" in outcome.stderr
    assert table_of(output).missing == ("msvm-unet seed 1",)
    assert [method for method, _ in methods(table_of(output))] == ["msvm-unet"]


def test_published_numbers_are_those_of_experiments():
    rows = published_results().rows
    synapse = {row.method: row.measures for row in rows if row.data == "synapse"}
    assert synapse["MSVM-UNet"] == {"dice": 0.85, "hd95": 14.75}
    assert synapse["MERIT-GCASCADE"] == {"dice": 0.8454, "hd95": 10.38}
    own = next(row for row in rows if row.method == "MSVM-UNet" and row.data == "synapse")
    # The mean of the printed organs is the printed mean.
    assert sum(own.labels.values()) / 8 == pytest.approx(own.measures["dice"], abs=5e-5)
    for experiment in EXPERIMENTS:
        names = {label for row in results_of(experiment) for label in row.labels}
        spec = NAMED_DATASETS[experiment.data].spec
        assert spec is not None
        assert names <= set(spec.foreground)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda one: one.name)
def test_published_patches_fit_the_networks(experiment):
    """The full size of every experiment, planned for made-up volumes of its data set."""
    spec = NAMED_DATASETS[experiment.data].spec
    shape = (60, 300, 300) if experiment.num_axes == 3 or experiment.data == "abdomen-mr" else (1, 512, 700)
    case = CaseMeasures(case="one", spacing=(3.0, 1.0, 1.0), shape=shape, source_shape=shape)
    statistics = IntensityStatistics(
        mean=0.0,
        median=0.0,
        standard_deviation=1.0,
        minimum=0.0,
        maximum=1.0,
        percentile_00_5=0.0,
        percentile_99_5=1.0,
    )
    fingerprint = Fingerprint(
        num_axes=2 if shape[0] == 1 else 3,
        cases=(case,) * 4,
        intensities=(statistics,) * spec.num_channels,
        median_relative_size_after_crop=1.0,
    )
    plan = make_plan(fingerprint, spec, recipe=experiment.recipe)
    if experiment.patch_size is not None:
        plan = replace_patch(plan, experiment.patch_size)
        assert plan.sampling.patch_size == experiment.patch_size
    assert len(plan.sampling.patch_size) == experiment.num_axes
    check_network(plan)


def test_what_is_not_there_is_refused_with_what_is(acdc, tmp_path, command):
    output = tmp_path / "out"
    wrong = command("reproduce", "msvm-unet", acdc, "--data", "brats23", "--from-scratch", "-o", output)
    assert wrong.code == 2
    assert "msvm-unet has no experiment on brats23. Choose one of synapse (2D), acdc (2D)" in wrong.stderr
    dims = command("reproduce", "xlstm-unet", acdc, "--data", "endovis17", "--dims", 3, "-o", output)
    assert "no experiment on endovis17 (3D)" in dims.stderr
    baseline = command(
        "reproduce",
        "msvm-unet",
        acdc,
        "--data",
        "acdc",
        "--from-scratch",
        "--baselines",
        "u-net",
        "-o",
        output,
    )
    assert "baselines: expected names of no-sequence, plain-unet" in baseline.stderr
    seeds = command("reproduce", "xlstm-unet", acdc, "--data", "hippocampus", "--seeds", "0,x", "-o", output)
    assert "--seeds 0,x: expected whole numbers from 0, separated by commas, got x" in seeds.stderr
    no_source = command("reproduce", "xlstm-unet", "--data", "hippocampus", "-o", output)
    assert no_source.code == 2
    assert "nothing to resume. Give the folder of hippocampus" in no_source.stderr


def test_a_device_that_is_not_there_is_told_of_before_the_data_set_is_converted(acdc, tmp_path, command):
    output = tmp_path / "out"
    words = ("reproduce", "msvm-unet", acdc, "--data", "acdc", "--from-scratch", "--quick", "-o", output)
    outcome = command(*words, "--device", "cuda:77")
    assert (outcome.code, output.exists()) == (2, False)
    assert "device 'cuda:77' is not available" in outcome.stderr
