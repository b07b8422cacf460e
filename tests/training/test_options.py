"""What a plan can ask of a training, by what comes out of it."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import scanseg
from scanseg.errors import InputError, InterruptionError, UsageError
from scanseg.models import ModelFolder
from scanseg.preprocessing.compressed import read_array
from tests.factories import write_disks

from .conftest import SETTINGS
from .test_resuming import StoppedError, kill_in

LONGER = ("training.epochs=6", "training.validate_every=1", "training.checkpoint_seconds=0")
EVERYTHING = (
    *LONGER,
    *("training.ema_decay=0.9", "training.accumulation_steps=2", "training.export=best"),
    'training.early_stop={"measure": "loss", "patience_epochs": 5}',
    'sampling.label_weights={"disk": 2}',
    'training.loss.label_weights={"disk": 3}',
    "training.score_both=true",
)


def read(folder, name):
    return json.loads((folder / name).read_text())


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def train_in(dataset, folder, *settings, **options):
    given = {"device": "cpu", "num_workers": 0, "store": dataset.parent / "stores", **options}
    return scanseg.train(dataset, folder, settings=(*SETTINGS, *settings), **given)


def test_parts_of_a_batch_teach_what_the_whole_does(dataset, tmp_path):
    settings = ("sampling.batch_size=4", "training.loss.dice_over_batch=false")
    for count in (1, 4):
        train_in(dataset, tmp_path / f"m{count}", *settings, f"training.accumulation_steps={count}")

    whole, parts = (load_file(tmp_path / f"m{count}" / "model.safetensors") for count in (1, 4))
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-3, atol=1e-5)  # float32 sums in another order
    with pytest.raises(UsageError, match=r"batch_size 4 is not divisible into training.accumulation_steps 3"):
        train_in(dataset, tmp_path / "m3", *settings, "training.accumulation_steps=3")


def test_averaged_weights_are_validated_and_exported(dataset, tmp_path):
    train_in(dataset, tmp_path / "plain", *LONGER)
    train_in(dataset, tmp_path / "averaged", *LONGER, "training.ema_decay=0.999")

    run = read(tmp_path / "averaged", "run.json")
    assert (run["exported"]["ema"], run["exported"]["checkpoint"]) == (True, "last")
    state = next((tmp_path / "averaged" / "state").iterdir())
    exported = load_file(tmp_path / "averaged" / "model.safetensors")
    ema, network = (load_file(state / f"{name}.safetensors") for name in ("ema", "network"))
    plain = load_file(tmp_path / "plain" / "model.safetensors")
    assert all(torch.equal(exported[name], ema[name]) for name in exported)
    assert all(torch.equal(network[name], plain[name]) for name in plain)
    assert any(not torch.equal(exported[name], network[name]) for name in exported)
    dice = [[line["validation_dice"] for line in metrics(tmp_path / name)] for name in ("plain", "averaged")]
    assert dice[0] != dice[1]


def test_the_best_weights_are_kept_and_can_be_exported(dataset, tmp_path):
    # A learning rate far too high, so that the last weights are not the best.
    settings = (*LONGER, "training.epochs=7", 'training.optimizer={"kind": "adamw", "lr": 0.5}')
    settings = (*settings, 'training.schedule={"kind": "constant"}', "training.score_both=true")
    train_in(dataset, tmp_path / "last", *settings)
    train_in(dataset, tmp_path / "best", *settings, "training.export=best")

    dice = [line["validation_dice"]["disk"] or 0.0 for line in metrics(tmp_path / "last")]
    exported = read(tmp_path / "best", "run.json")["exported"]
    assert max(dice) > dice[-1]
    assert exported["patch_dice"] == max(dice)
    assert exported["iterations"] == 2 * (dice.index(max(dice)) + 1)
    files = {
        (folder, name): load_file(tmp_path / folder / f"{name}.safetensors")
        for folder, name in (("last", "model"), ("last", "best"), ("best", "model"), ("best", "last"))
    }
    for name, tensor in files["last", "best"].items():
        assert torch.equal(tensor, files["best", "model"][name])
        assert torch.equal(files["last", "model"][name], files["best", "last"][name])
    scores = [read(tmp_path / folder, name) for folder in ("last", "best") for name in ("validation.json",)]
    others = [
        read(tmp_path / "last", "validation-best.json"),
        read(tmp_path / "best", "validation-last.json"),
    ]
    assert scores[0]["summary"] == others[1]["summary"]
    assert scores[1]["summary"] == others[0]["summary"]
    folder = ModelFolder.open(tmp_path / "last")
    assert folder.weights_path("last").name == "model.safetensors"
    assert folder.weights_path("best").name == "best.safetensors"
    images = [dataset / "imagesTr" / "case_0_0000.png"]
    ours, theirs = (
        scanseg.load(tmp_path / name, device="cpu", weights=weights).predict(images, probabilities=True)
        for name, weights in (("last", "best"), ("best", "exported"))
    )
    assert (ours.probabilities == theirs.probabilities).all()


def test_best_without_validation_cases_is_refused(dataset, tmp_path):
    with pytest.raises(UsageError, match="export best needs validation cases, and fold all has none"):
        train_in(dataset, tmp_path / "model", "training.export=best", fold="all")


def test_early_stop_by_a_measure_that_is_never_taken_is_refused(dataset, tmp_path):
    stop = 'training.early_stop={"patience_epochs": 1}'

    with pytest.raises(
        UsageError, match="early_stop by validation-dice needs validation cases, and fold all has"
    ):
        train_in(dataset, tmp_path / "model", stop, fold="all")


def test_early_stop_does_not_end_before_it_has_measured_again(dataset, tmp_path):
    stop = {"patience_epochs": 2, "least_improvement": 100.0}
    settings = ("training.epochs=20", "training.validate_every=5", f"training.early_stop={json.dumps(stop)}")

    assert train_in(dataset, tmp_path / "model", *settings).epochs_done == 10


@pytest.mark.parametrize("measure", ["loss", "validation-dice"])
def test_a_training_that_does_not_get_better_ends(dataset, tmp_path, measure):
    stop = {"measure": measure, "patience_epochs": 2, "least_improvement": 100.0}
    settings = (*LONGER, "training.epochs=50", f"training.early_stop={json.dumps(stop)}")

    result = train_in(dataset, tmp_path / "model", *settings)

    assert result.epochs_done == 3
    assert train_in(dataset, tmp_path / "model", *settings, resume=True).epochs_done == 3


def test_goes_on_exactly_with_everything(dataset, tmp_path):
    def stop_at(count):
        heard = []

        def progress(progress):
            heard.append(progress.task == "training")
            if sum(heard) == count:
                raise StoppedError

        return progress

    train_in(dataset, tmp_path / "whole", *EVERYTHING)
    # Killed in the midst of an epoch, whose steps since the last checkpoint are taken again; then after an epoch.
    for count in (5, 3):
        with pytest.raises(StoppedError):
            train_in(dataset, tmp_path / "pieces", *EVERYTHING, resume=count == 3, progress=stop_at(count))
    train_in(dataset, tmp_path / "pieces", *EVERYTHING, resume=True)

    for name in ("model.safetensors", "last.safetensors"):
        whole, pieces = (load_file(tmp_path / folder / name) for folder in ("whole", "pieces"))
        assert all(torch.equal(pieces[key], whole[key]) for key in whole)
    drop = {"seconds"}
    lines = [
        [{key: line[key] for key in line.keys() - drop} for line in metrics(tmp_path / folder)]
        for folder in ("whole", "pieces")
    ]
    assert lines[0] == lines[1]
    assert (
        read(tmp_path / "whole", "run.json")["exported"] == read(tmp_path / "pieces", "run.json")["exported"]
    )


def signal_at(number):
    """A listener that has SIGINT sent at a step of the training, once."""
    heard = []

    def progress(progress):
        heard.append(progress.task == "training")
        if progress.task == "training" and sum(heard) == number:
            signal.raise_signal(signal.SIGINT)

    return progress


@pytest.mark.parametrize("number", [1, 2])
def test_a_signal_at_any_step_of_an_epoch_leaves_whole_metrics(dataset, tmp_path, number):
    with pytest.raises(InterruptionError):
        train_in(dataset, tmp_path / "pieces", *LONGER, progress=signal_at(number))
    train_in(dataset, tmp_path / "pieces", *LONGER, resume=True)
    train_in(dataset, tmp_path / "whole", *LONGER)

    def losses(folder):
        return [(line["epoch"], line["loss"], line["validation_dice"]) for line in metrics(folder)]

    assert losses(tmp_path / "pieces") == losses(tmp_path / "whole")


def test_an_epoch_has_one_line_of_metrics_wherever_a_training_was_stopped(dataset, tmp_path):
    few = ("training.epochs=3", "training.checkpoint_seconds=1000")
    with pytest.raises(InterruptionError):  # asked after the last step of an epoch, before its end
        train_in(dataset, tmp_path / "model", *few, progress=signal_at(1))
    with pytest.raises(StoppedError):  # after its end, before another checkpoint
        train_in(dataset, tmp_path / "model", *few, resume=True, progress=kill_in("training"))
    assert [line["epoch"] for line in metrics(tmp_path / "model")] == [1]

    train_in(dataset, tmp_path / "model", *few, resume=True)

    assert [line["epoch"] for line in metrics(tmp_path / "model")] == [1, 2, 3]


def write_stripes(folder, **changes):
    """Write disks of which every third row has another label."""
    dataset = write_disks(folder / "disks")
    for path in (dataset / "labelsTr").iterdir():
        label_map = np.array(Image.open(path))
        label_map[::3] *= 2
        Image.fromarray(label_map).save(path)
    (dataset / "dataset.json").write_text(json.dumps(read(dataset, "dataset.json") | changes))
    return dataset


def test_the_order_in_which_labels_are_listed_changes_nothing(tmp_path):
    values, found = {"background": 0, "disk": 1, "stripes": 2}, []
    for number, names in enumerate((values, reversed(values))):
        folder = write_stripes(tmp_path / str(number), labels={name: values[name] for name in names})
        train_in(folder, tmp_path / f"model_{number}", *LONGER)
        found.append(read(tmp_path / f"model_{number}", "validation.json")["summary"]["labels"])
    weights = [load_file(tmp_path / f"model_{number}" / "model.safetensors") for number in range(2)]

    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert found[0] == found[1]
    assert found[0]["disk"]["dice"]["mean"] > 0


def test_fine_tuning_begins_with_another_model(dataset, tmp_path):
    train_in(dataset, tmp_path / "first")
    other = write_disks(tmp_path / "others" / "disks", numbers=range(5, 10))
    options = {"initial_weights": tmp_path / "first", "lr": 1e-9, "epochs": 1}

    result = scanseg.train(other, tmp_path / "second", device="cpu", num_workers=0, **options)

    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=0, atol=1e-6)  # the learning rate is 1e-9
    assert result.renewed_parameters == ()
    assert read(tmp_path / "second", "run.json")["initial_weights"] == str(tmp_path / "first")


def test_fine_tuning_on_other_labels_begins_the_head_anew(dataset, tmp_path, command):
    train_in(dataset, tmp_path / "first")
    other = write_disks(tmp_path / "others" / "rings", numbers=range(5, 10))
    content = read(other, "dataset.json")
    (other / "dataset.json").write_text(
        json.dumps(content | {"labels": {"background": 0, "ring": 1, "dot": 2}})
    )
    words = ("--initial-weights", tmp_path / "first", "--lr", "1e-9", "--epochs", 1, "--device", "cpu")

    outcome = command("train", other, "-o", tmp_path / "second", *words, "--num-workers", 0)

    assert outcome.code == 0, outcome.stderr
    assert "Initialized again: " in outcome.stdout
    renewed = set(read(tmp_path / "second", "run.json")["renewed_parameters"])
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert renewed
    for name, tensor in second.items():
        assert (name in renewed) == (tensor.shape != first[name].shape)
        if name not in renewed:
            torch.testing.assert_close(tensor, first[name], rtol=0, atol=1e-6)


def test_regions_in_another_order_have_another_head(tmp_path):
    regions = {"disk": [1, 2], "stripes": [2]}
    folders = [
        write_stripes(
            tmp_path / str(number),
            labels={"background": 0, **{name: regions[name] for name in names}},
            regions_class_order=[regions[name][0] for name in names],
        )
        for number, names in enumerate(([*regions], [*reversed(regions)]))
    ]
    train_in(folders[0], tmp_path / "first")
    other = train_in(folders[1], tmp_path / "other", initial_weights=tmp_path / "first")

    assert other.renewed_parameters


def test_a_training_killed_before_its_first_checkpoint_still_begins_with_the_other_model(dataset, tmp_path):
    train_in(dataset, tmp_path / "first")
    options = {"initial_weights": tmp_path / "first"}
    with pytest.raises(StoppedError):
        train_in(dataset, tmp_path / "pieces", **options, progress=kill_in("training"))

    train_in(dataset, tmp_path / "pieces", resume=True)
    train_in(dataset, tmp_path / "whole", **options)

    whole, pieces = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "pieces"))
    assert all(torch.equal(pieces[name], whole[name]) for name in whole)
    with pytest.raises(UsageError, match=r"initial weights are .*first, not .*whole"):
        train_in(dataset, tmp_path / "pieces", initial_weights=tmp_path / "whole", resume=True)


def test_weights_of_another_network_are_refused(dataset, plan, tmp_path):
    train_in(dataset, tmp_path / "first")

    with pytest.raises(InputError, match=r"do not fit the network of the plan: .*expected shape .*--like"):
        scanseg.train(
            plan,
            tmp_path / "second",
            initial_weights=tmp_path / "first",
            settings=("network.features=[4, 12]",),
            device="cpu",
            num_workers=0,
        )


def test_a_plan_like_a_model_s(dataset, tmp_path, command):
    train_in(dataset, tmp_path / "first")
    other = write_disks(tmp_path / "others" / "disks", numbers=range(5, 10))

    outcome = command(
        "plan", other, "--like", tmp_path / "first", "-o", tmp_path / "like.json", "--num-workers", 0
    )

    assert outcome.code == 0, outcome.stderr
    ours, theirs = read(tmp_path, "like.json"), read(tmp_path / "first", "plan.json")
    assert ours["network"] == theirs["network"]
    assert ours["preprocessing"] == theirs["preprocessing"]
    assert ours["dataset_path"] == str(other)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            'training.loss.label_weights={"disc": 2}',
            r"expected labels of \['background', 'disk'\], got \['disc'\]",
        ),
        ('sampling.label_weights={"background": 2}', r"expected labels of \['disk'\], got \['background'\]"),
        ('sampling.label_weights={"disk": 0}', "0 for every label"),
    ],
)
def test_weights_of_labels_that_are_not_there_are_refused(dataset, tmp_path, setting, message):
    with pytest.raises(UsageError, match=message):
        train_in(dataset, tmp_path / "model", setting)


def test_whole_validation_cases_are_averaged_over_flips_where_asked(dataset, tmp_path):
    model = tmp_path / "model"
    train_in(
        dataset,
        model,
        "training.mirror_validation=true",
        "inference.mirror_axes=[0, 1]",
        keep_predictions=True,
    )

    case = read(model, "validation.json")["cases"][0]["case"]
    kept = read_array(model / "validation" / f"{case}.b2nd")
    image = next((dataset / "imagesTr").glob(f"{case}_0000.*"))
    mirrored, plain = (
        scanseg.load(model).predict(image, mirror=mirror).label_map for mirror in (True, False)
    )
    np.testing.assert_array_equal(np.squeeze(kept), np.squeeze(mirrored))
    assert (np.squeeze(kept) != np.squeeze(plain)).any()
    with pytest.raises(
        UsageError, match=r"mirror_validation is true, but inference.mirror_axes names no axes"
    ):
        train_in(dataset, tmp_path / "other", "training.mirror_validation=true", "inference.mirror_axes=[]")


def test_cases_are_preprocessed_apart_from_training(command, dataset, tmp_path):
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    assert command("plan", dataset, "-o", tmp_path / "plan.json", *settings).code == 0
    made = command("preprocess", tmp_path / "plan.json", "--store", tmp_path / "stores")
    assert made.code == 0, made.stderr
    folder = Path(made.stdout.splitlines()[0])
    assert folder.parent == tmp_path / "stores"

    dataset.rename(tmp_path / "elsewhere")  # the machine that trains has no images
    options = ("--store", tmp_path / "stores", "--device", "cpu", "--num-workers", "0")
    trained = command("train", tmp_path / "plan.json", "-o", tmp_path / "model", *options)
    assert trained.code == 0, trained.stderr
    again = command("preprocess", tmp_path / "plan.json", "--store", tmp_path / "stores")
    assert (again.code, again.stdout.splitlines()[0]) == (0, str(folder))
