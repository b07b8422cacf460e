"""After a kill at any step of making a folder, the same command or `--resume` goes on, and no rubbish remains."""

import functools
import os
import shutil
from itertools import count
from pathlib import Path

import numpy as np
import pytest

import scanseg
from scanseg.converters import NAMED_DATASETS, convert_dataset
from scanseg.dataset import find_splits, open_dataset
from scanseg.errors import ScansegError, UsageError
from scanseg.experiments import crossval as crossval_module
from scanseg.experiments.comparison import ComparisonOptions, run_comparison
from scanseg.experiments.job import TrainingJob
from scanseg.models import ModelFolder, write_ensemble
from scanseg.planning import Prepared
from scanseg.preprocessing import Store, build_store
from scanseg.runtime import RunContext
from scanseg.specs import CascadeSpec, ComparisonSpec, EnsembleSpec, PreprocessingSpec, ZScoreNormalization
from tests.factories import (
    SMALL_XLSTM_UNET_2D,
    make_plan,
    plain_unet,
    write_disks,
    write_folds,
    write_nested_boxes,
    write_picture,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")
CONTEXT = RunContext(device="cpu", num_workers=0)
SETTINGS = (*SMALL_XLSTM_UNET_2D, "training.epochs=1", "training.iterations_per_epoch=1")
_KILLED = 9
_STEPS = (
    (os, "mkdir"),
    (os, "replace"),
    (os, "rename"),
    (os, "rmdir"),
    (Path, "write_text"),
    (shutil, "copyfile"),
)
"""Functions that change a folder. A process is killed before each of their calls, and in the middle of a file."""


def run_killed(function, *, step):
    """Run a function in a process that is killed at a step, and return whether it came to that step."""
    process = os.fork()
    if process:
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        assert code in (0, _KILLED)
        return code == _KILLED
    steps = count(1)

    def killing(real):
        @functools.wraps(real)
        def call(*arguments, **options):
            if next(steps) == step:
                if real.__name__ == "write_text":
                    real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os._exit(_KILLED)
            return real(*arguments, **options)

        return call

    code = 1
    try:
        for module, name in _STEPS:
            setattr(module, name, killing(getattr(module, name)))
        function()
        code = 0
    finally:
        os._exit(code)


def kills(function, folder, *, every=1):
    """Yield the number of each step after a kill there, with a folder that is new each time.

    After the tenth step, only each one of `every` is tried.
    """
    for step in count(1):
        if step > 10 and step % every:
            continue
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if not run_killed(function, step=step):
            assert step > 2
            return
        yield step


def unfinished(folder):
    return [str(path) for path in folder.rglob(".writing-*")]


def test_a_model_folder(tmp_path):
    place, plan = tmp_path / "place", make_plan()
    for _ in kills(lambda: ModelFolder.create(place / "models" / "first", plan), place):
        folder = ModelFolder.create(place / "models" / "first", plan)
        assert ModelFolder.open(folder.path).plan == plan
        assert not unfinished(place)


def test_a_store(tmp_path):
    place, dataset = tmp_path / "place", open_dataset(write_nested_boxes(tmp_path / "raw", 2))

    def build():
        spec = PreprocessingSpec(normalizations=(ZScoreNormalization(),))
        return build_store(
            dataset, preprocessing=spec, splits=find_splits(dataset), folder=place / "store", context=CONTEXT
        )

    for _ in kills(build, place):
        build()
        store = Store.open(place / "store")
        assert [store.read_image(case).shape for case in store.index.cases] == [(1, 5, 12, 10)] * 2
        assert sorted(path.name for path in (place / "store").iterdir()) == ["cases", "store.json"]
        assert not unfinished(place)


def test_a_converted_data_set(tmp_path):
    place = tmp_path / "place"
    for number in range(2):
        write_picture(tmp_path / f"source/images/{number}.png", np.full((20, 24, 3), 90))
        write_picture(tmp_path / f"source/masks/{number}.png", np.full((20, 24), 255))

    def convert():
        named = NAMED_DATASETS["kvasir-seg"]
        convert_dataset(named, tmp_path / "source", place / "raw", context=CONTEXT)

    for _ in kills(convert, place):
        if not (place / "raw" / "dataset.json").exists():
            convert()
        assert len(open_dataset(place / "raw").cases) == 2
        assert not unfinished(place)


def finish(job):
    """Open or create the folder of a training, as its start does."""
    return job._open_folder()


def test_a_training_of_a_second_stage(tmp_path):
    """Its folder also gets the models of the first stage."""
    place, crossval = tmp_path / "place", tmp_path / "crossval"
    for fold in ("fold_0", "fold_1"):
        folder = ModelFolder.create(crossval / fold, make_plan())
        for name in ("run.json", "model.safetensors"):
            (folder.path / name).write_text(fold)
    write_ensemble(crossval, EnsembleSpec(members=("fold_0", "fold_1")))
    cascade = CascadeSpec(first_stage=str(crossval))
    plan = make_plan(plain_unet(3), patch_size=(8, 8, 8), cascade=cascade)
    job = TrainingJob(name="test", prepared=Prepared(plan, None), folder=place / "arm" / "seed_0_fold_0")
    for _ in kills(lambda: finish(job), place):
        folder = finish(job)
        for fold in ("fold_0", "fold_1"):
            assert (folder.first_stage_path / fold / "model.safetensors").read_text() == fold
        assert ModelFolder.exists(folder.first_stage_path / "fold_1")
        assert not unfinished(place)


def refused_or_done(function, *, resume):
    """Run a command again, and with `resume` if it is refused."""
    try:
        return function(resume=False)
    except UsageError as error:
        if "--resume" not in str(error):
            raise
        return function(resume=resume)


@pytest.fixture
def dataset(tmp_path):
    folder = write_disks(tmp_path / "disks", numbers=range(4))
    write_folds(folder, ((0, 1), (2, 3)), ((2, 3), (0, 1)))
    return folder


class StoppedError(ScansegError):
    """Stops a training when its folder is made."""


def test_a_training(dataset, tmp_path):
    place = tmp_path / "place"

    def stop(update):
        if update.task == "loading":
            raise StoppedError

    def train(*, resume=False):
        with pytest.raises(StoppedError):
            scanseg.train(
                dataset,
                place / "model",
                fold=1,
                settings=SETTINGS,
                store=tmp_path / "stores",
                device="cpu",
                resume=resume,
                num_workers=0,
                progress=stop,
            )

    train()  # makes the store
    for step in kills(train, place):
        if (place / "model").is_dir():
            shutil.copytree(place, tmp_path / "copy", dirs_exist_ok=True)
            train(resume=True)
            assert ModelFolder.open(place / "model").read_run().fold == 1
            assert not unfinished(place), step
            shutil.rmtree(place)
            (tmp_path / "copy").rename(place)
        refused_or_done(train, resume=True)
        assert ModelFolder.open(place / "model").read_run().fold == 1
        assert not unfinished(place), step


def test_a_comparison(dataset, tmp_path):
    place = tmp_path / "place"
    spec = ComparisonSpec(
        title="Blocks",
        question="Do they help?",
        recipe="xlstm-unet",
        settings=SETTINGS,
        arms=(
            {"name": "none", "settings": ["network.sequence_block=none"]},
            {"name": "Bot / ViL", "settings": []},
        ),
    )

    def compare(*, resume=False):
        options = ComparisonOptions(devices=("cpu",), prepare_only=True, resume=resume)
        return run_comparison(spec, dataset, place / "out", options, context=CONTEXT)

    for _ in kills(compare, place, every=7):
        if (place / "out").is_dir() and any((place / "out").iterdir()):
            record = refused_or_done(compare, resume=True)
        else:
            record = compare()
        assert len(record.missing) == 6
        assert not unfinished(place)


def test_a_cross_validation(dataset, tmp_path, monkeypatch):
    place, found = tmp_path / "place", []

    def stop(jobs, **options):
        found.append([job.name for job in jobs])
        raise StoppedError

    monkeypatch.setattr(crossval_module, "run_jobs", stop)

    def validate(*, resume=False):
        with pytest.raises(StoppedError):
            scanseg.cross_validate(
                dataset,
                place / "out",
                recipes=("xlstm-unet", "plain-unet-2d"),
                settings=[setting for setting in SETTINGS if "network" not in setting],
                store=tmp_path / "stores",
                devices=("cpu",),
                resume=resume,
                num_workers=0,
            )

    validate()
    for _ in kills(validate, place):
        refused_or_done(validate, resume=True)
        assert len(found[-1]) == 4
        assert not unfinished(place)
