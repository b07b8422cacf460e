"""Damaged metrics never stop a training, and checkpoints that do not fit are refused."""

import json
import re
from dataclasses import replace

import pytest
import torch

from scanseg.errors import InputError
from scanseg.experiments.curves import write_curves
from scanseg.models import ModelFolder
from scanseg.models.network import load_weights
from scanseg.models.tensors import read_tensors, write_tensors
from scanseg.runtime import RunContext
from scanseg.specs import AdamWSpec, SGDSpec, TrainingSpec
from scanseg.training.step import TrainingStep
from tests.factories import make_plan, make_square_batch

LINES = [
    {"epoch": epoch, "loss": 1 / epoch, "seconds": epoch, "validation_dice": {"disc": 0.5}}
    for epoch in (1, 2, 3)
]
DAMAGED = [
    b"",
    b"rubbish",
    b'{"epoch": 4, "loss": ',
    b"[1, 2]",
    b"3",
    b'{"loss": 0.5}',
    b'{"epoch": "4", "loss": 0.5}',
    b'{"epoch": -4, "loss": 0.5}',
    b'{"epoch": true, "loss": 0.5}',
    b'{"epoch": 4, "loss": NaN}',
    b'{"epoch": 4, "loss": "low"}',
    b'{"epoch": 4, "validation_dice": [1]}',
    b'{"epoch": 4, "validation_dice": {"disc": "high"}}',
    b'{"epoch": 4, "seconds": null}',
    b"\xff\xfe\x00",
    b"\0" * 50,
    b"[" * 100_000,
    b'{"epoch": ' + b"9" * 5000 + b"}",
]


@pytest.fixture
def folder(tmp_path):
    return ModelFolder.create(tmp_path / "model", make_plan())


@pytest.mark.parametrize("damaged", DAMAGED)
@pytest.mark.parametrize("position", [0, 1, 3])
def test_damaged_metrics_are_skipped_with_one_warning(folder, damaged, position):
    lines = [json.dumps(line).encode() for line in LINES]
    (folder.path / "metrics.jsonl").write_bytes(
        b"\n".join((*lines[:position], damaged, *lines[position:])) + b"\n"
    )
    assert folder.metrics.read() == LINES
    write_curves(folder)
    assert folder.metrics.keep(2, iterations_done=20) == (
        f"{folder.path / 'metrics.jsonl'}: 1 damaged line left out, so the curves lack these epochs"
    )
    assert folder.metrics.read() == LINES[:2]
    assert folder.metrics.keep(2, iterations_done=20) is None


def test_lines_without_some_measures_are_drawn(folder):
    for line in (
        {"epoch": 1},
        {"epoch": 2, "loss": 0.5},
        LINES[2],
        {"epoch": 4, "validation_dice": {"other": None}},
    ):
        folder.metrics.append(line)
    write_curves(folder)
    assert folder.curves_path.is_file()


def make_step(optimizer, *, ema_decay=None):
    plan = make_plan(training=TrainingSpec(optimizer=optimizer, ema_decay=ema_decay, cuda_graph=False))
    torch.manual_seed(0)
    network = ModelFolder(None, plan).build_network()
    return TrainingStep(plan, network, context=RunContext(device="cpu", num_workers=0), autocast_dtype=None)


def make_checkpoint(tmp_path, optimizer, **options):
    """Train one step, and read the checkpoint of it."""
    step = make_step(optimizer, **options)
    step.run(make_square_batch(16, 0), lr=0.01, encoder_frozen=False)
    folder = ModelFolder.create(tmp_path / "model", make_plan())
    folder.write_checkpoint(step.checkpoint())
    return folder.read_checkpoint()


def change(tensors, name, value):
    return (
        {**tensors, name: value}
        if value is not None
        else {key: tensors[key] for key in tensors if key != name}
    )


def first(tensors, *, after=""):
    return next(name for name in tensors if after in name and tensors[name].ndim > 1)


TENSOR_CHANGES = {
    "missing": lambda value: None,
    "shape": lambda value: torch.cat([value, value]),
    "transposed": lambda value: value.flatten(),
    "float64": lambda value: value.double(),
    "float16": lambda value: value.half(),
    "integers": lambda value: value.int(),
}


@pytest.mark.parametrize("spec", [SGDSpec(), AdamWSpec()])
@pytest.mark.parametrize("part", ["network", "optimizer", "ema"])
@pytest.mark.parametrize("changed", TENSOR_CHANGES)
def test_tensors_that_do_not_fit_are_refused_with_their_file(tmp_path, spec, part, changed):
    checkpoint = make_checkpoint(tmp_path, spec, ema_decay=0.9)
    tensors = getattr(checkpoint, part)
    name = first(tensors, after="." if part == "optimizer" else "")
    value = TENSOR_CHANGES[changed](tensors[name])
    with pytest.raises(
        InputError, match=rf"{part}\.safetensors: the checkpoint does not fit the plan: {name}"
    ):
        make_step(spec, ema_decay=0.9).restore(replace(checkpoint, **{part: change(tensors, name, value)}))
    make_step(spec, ema_decay=0.9).restore(checkpoint)


@pytest.mark.parametrize("name", ["x", "0.x", "9999.exp_avg", "0", "-1.momentum_buffer", "x" * 5000])
def test_further_tensors_of_an_optimizer_are_refused(tmp_path, name):
    checkpoint = make_checkpoint(tmp_path, AdamWSpec())
    tensors = {**checkpoint.optimizer, name: torch.zeros(3)}
    with pytest.raises(InputError, match=r"optimizer\.safetensors: .* is unexpected") as caught:
        make_step(AdamWSpec()).restore(replace(checkpoint, optimizer=tensors))
    assert len(str(caught.value)) < 2000


def test_a_parameter_without_any_state_is_missed(tmp_path):
    """AdamW would start its moments again without a word."""
    checkpoint = make_checkpoint(tmp_path, AdamWSpec())
    tensors = {name: value for name, value in checkpoint.optimizer.items() if not name.startswith("0.")}
    with pytest.raises(InputError, match=r"expected \d+ tensors, got \d+"):
        make_step(AdamWSpec()).restore(replace(checkpoint, optimizer=tensors))


@pytest.mark.parametrize("spec", [SGDSpec(), AdamWSpec()])
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (lambda groups: groups[:-1], "expected . groups, got"),
        (lambda groups: (*groups, groups[0]), "expected . groups, got"),
        (
            lambda groups: ({**groups[0], "lr": "fast"}, *groups[1:]),
            r"optimizer_groups\.0\.lr: expected a value",
        ),
        (lambda groups: ({**groups[0], "lr": None}, *groups[1:]), r"optimizer_groups\.0\.lr"),
        (
            lambda groups: ({**groups[0], "weight_decay": -1.0}, *groups[1:]),
            r"optimizer_groups\.0\.weight_decay",
        ),
        (
            lambda groups: ({**groups[0], "weight_decay": [1]}, *groups[1:]),
            r"optimizer_groups\.0\.weight_decay",
        ),
        (lambda groups: ({**groups[0], "params": [7]}, *groups[1:]), r"optimizer_groups\.0\.params"),
        (
            lambda groups: ({"params": groups[0]["params"]}, *groups[1:]),
            r"optimizer_groups\.0\.lr is missing",
        ),
    ],
)
def test_groups_that_do_not_fit_are_refused(tmp_path, spec, changed, words):
    checkpoint = make_checkpoint(tmp_path, spec)
    state = checkpoint.state.model_copy(
        update={"optimizer_groups": changed(checkpoint.state.optimizer_groups)}
    )
    with pytest.raises(InputError, match=rf"state\.json: .*{words}"):
        make_step(spec).restore(replace(checkpoint, state=state))


def test_nan_in_the_state_is_refused(tmp_path):
    checkpoint = make_checkpoint(tmp_path, SGDSpec())
    path = checkpoint.folder / "state.json"
    path.write_text(re.sub(r'"momentum": [0-9.]+', '"momentum": NaN', path.read_text()))
    with pytest.raises(InputError, match=r"state\.json: expected JSON \(expected a finite number, got NaN\)"):
        ModelFolder.open(tmp_path / "model").read_checkpoint()


def test_weights_that_the_plan_has_not_are_refused(tmp_path):
    with_ema = make_checkpoint(tmp_path, SGDSpec(), ema_decay=0.9)
    with pytest.raises(InputError, match=r"ema\.safetensors: unexpected"):
        make_step(SGDSpec()).restore(with_ema)
    with pytest.raises(InputError, match=r"ema\.safetensors: missing"):
        make_step(SGDSpec(), ema_decay=0.9).restore(replace(with_ema, ema=None))
    with pytest.raises(InputError, match=r"best\.safetensors: unexpected"):
        make_step(SGDSpec(), ema_decay=0.9).restore(replace(with_ema, best=with_ema.network))


def test_an_older_checkpoint_is_restored(tmp_path):
    checkpoint = make_checkpoint(tmp_path, AdamWSpec())
    path = checkpoint.folder / "state.json"
    content = json.loads(path.read_text())
    del content["num_optimizer_tensors"]
    path.write_text(json.dumps(content))
    step = make_step(AdamWSpec())
    step.restore(ModelFolder.open(tmp_path / "model").read_checkpoint())
    assert step.iterations_done == 1


@pytest.mark.parametrize(
    "content", [b"", b"rubbish" * 50, b"\xff" * 8 + b"{}", b"\x02" + b"\0" * 7 + b"{}x" * 9]
)
def test_files_that_hold_no_weights_are_named(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors: (cannot be read|the weights do not fit)"):
        load_weights(
            make_step(SGDSpec()).network,
            read_tensors(tmp_path / "model.safetensors"),
            source=tmp_path / "model.safetensors",
        )


def test_many_tensors_that_do_not_fit_are_cut(tmp_path):
    write_tensors(
        {f"{number}{'x' * 500}": torch.zeros(1) for number in range(300)}, tmp_path / "a.safetensors"
    )
    with pytest.raises(InputError) as caught:
        load_weights(
            make_step(SGDSpec()).network,
            read_tensors(tmp_path / "a.safetensors"),
            source=tmp_path / "a.safetensors",
        )
    assert "is missing" in str(caught.value)
    assert len(str(caught.value)) < 2000
