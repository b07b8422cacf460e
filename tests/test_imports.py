"""Packages work without libraries that they do not need."""

import inspect
import subprocess
import sys

import scanseg
from scanseg import api

BLOCKED = """
import importlib.abc
import sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(f"{{name}} is blocked by the test")

sys.meta_path.insert(0, Block())
{code}
"""


def run_without(blocked: tuple[str, ...], code: str) -> None:
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKED.format(blocked=blocked, code=code)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr


def test_training_needs_no_image_library() -> None:
    run_without(
        ("SimpleITK", "nibabel", "PIL", "tifffile", "matplotlib"), "import scanseg.training, scanseg.planning"
    )


def test_documents_need_neither_torch_nor_numpy() -> None:
    run_without(("torch", "numpy"), "import scanseg.specs, scanseg.settings, scanseg.files")


def test_networks_need_no_library_of_images_or_stores() -> None:
    blocked = ("SimpleITK", "PIL", "tifffile", "matplotlib", "blosc2", "nibabel")
    run_without(blocked, "from scanseg.networks import MSVMUNet, XLSTMUNet")


def test_networks_do_not_import_the_compiler() -> None:
    """It takes a second of each prediction."""
    code = "import sys, scanseg.networks, scanseg.inference, scanseg.api; assert 'torch._dynamo' not in sys.modules"
    run_without((), code)


def test_no_optional_library_is_needed() -> None:
    run_without(("nilearn", "nibabel", "triton", "tensorboard", "monai"), "import scanseg.api, scanseg.cli")


def test_prediction_needs_no_torch() -> None:
    run_without(
        ("torch", "safetensors", "matplotlib"), "from scanseg.inference import Predictor, load, postprocess"
    )


def test_processes_that_read_patches_need_no_torch() -> None:
    run_without(("torch",), "from scanseg.batches.box_reading import locate_case, read_boxes")


def test_names_can_be_listed_before_torch_is_loaded() -> None:
    code = "import scanseg; missing = set(scanseg.__all__) - set(dir(scanseg)); assert not missing, missing"
    run_without(("torch",), code)


def test_every_function_of_the_api_is_a_name_of_the_package() -> None:
    functions = {
        name
        for name, value in vars(api).items()
        if inspect.isfunction(value) and value.__module__.startswith(f"{api.__name__}.")
    }
    assert functions == set(api.__all__) == set(scanseg.__all__) - {"__version__"}
    imported = inspect.getsource(scanseg).partition("from scanseg.api import (")[2].partition(")")[0]
    assert {name.strip() for name in imported.split(",")} - {""} == functions  # for type checkers
