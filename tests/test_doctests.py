"""The examples in docstrings run and give the output that they show.

Every public function of the modules in `MODULES` must have an example, and so must every object in `OBJECTS`, such as a
class. To check another module or object, add its name there.
"""

import doctest
import importlib
import inspect
import pkgutil
import shutil
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import pytest

import scanseg
from scanseg.runtime import workers
from tests.dicom_series import write_series
from tests.factories import SMALL_XLSTM_UNET_2D, write_disks, write_picture

MODULES = ["scanseg.ops", "scanseg.networks", "scanseg.api"]
"""Modules with an `__all__`. All their public functions need an example."""

OBJECTS = [
    "scanseg.networks.MSVMUNet",
    "scanseg.networks.PlainUNet",
    "scanseg.networks.ResidualUNet",
    "scanseg.networks.XLSTMUNet",
]
"""Full names of other objects that need an example."""

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def public_functions(module: ModuleType) -> dict[str, FunctionType]:
    """Return the functions in a module's `__all__`, without decorators."""
    members = {name: inspect.unwrap(getattr(module, name)) for name in module.__all__}
    return {name: member for name, member in members.items() if isinstance(member, FunctionType)}


def examples(name: str, item: object) -> list[doctest.DocTest]:
    """Return the examples in an object's docstring, which see no names of its module."""
    found = doctest.DocTestFinder(recurse=False).find(item, name, globs={})
    return [test for test in found if test.examples]


CASES = [
    pytest.param(f"{name}.{function}", member, id=f"{name}.{function}")
    for name in MODULES
    for function, member in public_functions(importlib.import_module(name)).items()
] + [pytest.param(name, pkgutil.resolve_name(name), id=name) for name in OBJECTS]


def test_every_module_has_public_functions():
    for name in MODULES:
        assert public_functions(importlib.import_module(name)), name


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with the files that the examples of `scanseg` name."""
    folder = tmp_path_factory.mktemp("examples")
    dataset = write_disks(folder / "DATASET", numbers=range(4))
    settings = (
        *SMALL_XLSTM_UNET_2D,
        *("training.epochs=1", "training.iterations_per_epoch=2", "training.validation_batches=1"),
    )
    plan = scanseg.make_plan(dataset, settings=settings, num_workers=0)
    (folder / "plan.json").write_text(plan.to_json())
    scanseg.train(folder / "plan.json", folder / "MODEL", device="cpu", num_workers=0)
    shutil.copytree(folder / "MODEL", folder / "CALIBRATED")
    scanseg.export_nnunet_model(folder / "MODEL", folder / "NNUNET")
    shutil.copy(dataset / "imagesTr" / "case_0_0000.png", folder / "image.png")
    write_series(folder / "SERIES", np.zeros((4, 5, 6), np.int16))
    for name in ("predictions", "REFERENCES"):
        shutil.copytree(dataset / "labelsTr", folder / name)
    numbers = np.zeros((32, 32), dtype=np.uint8)
    numbers[4:10, 4:10], numbers[16:24, 12:20] = 1, 2
    for name in ("instances", "instancesTs"):
        write_picture(folder / name / "cells.png", numbers)
    for number in range(10):
        mask = np.zeros((32, 32), dtype=np.uint8)
        mask[8:16, number : number + 8] = 255
        rgb = np.repeat(mask[..., np.newaxis] // 2 + 60, 3, axis=2)
        write_picture(folder / "KVASIR" / "images" / f"polyp{number}.png", rgb)
        write_picture(folder / "KVASIR" / "masks" / f"polyp{number}.png", mask)
    return folder


@pytest.mark.parametrize(("name", "item"), CASES)
def test_example_gives_its_output(name, item, files, monkeypatch):
    monkeypatch.chdir(files)
    monkeypatch.setattr(workers, "_MAX_WORKERS", 0)  # worker processes have their own tests
    found = examples(name, item)
    assert found, f"{name}: expected an example (>>>) in the docstring, got none. Add a small one."
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    output: list[str] = []
    for case in found:
        runner.run(case, out=output.append)
    assert runner.failures == 0, "".join(output)


def test_a_wrong_output_is_detected():
    def function():
        """Add.

        >>> 1 + 1
        3
        """

    (case,) = examples("function", function)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    runner.run(case, out=lambda text: None)
    assert runner.failures == 1


def test_a_missing_example_is_detected():
    def function():
        """Add."""

    assert examples("function", function) == []
