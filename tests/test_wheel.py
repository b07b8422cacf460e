"""The wheel runs the command in an environment of its own outside the checkout."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import scanseg

ROOT = Path(__file__).resolve().parent.parent


def run(*words: object, folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, folder=ROOT)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the programs' folder of an environment with the wheel, and with this environment's other packages.

    A path file makes these packages importable. Path files among them, such as that of an editable scanseg, have no
    effect there.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    names = {"base": str(folder), "platbase": str(folder), "installed_base": str(folder)}
    programs, packages = (
        Path(sysconfig.get_path(name, "venv", vars=names)) for name in ("scripts", "purelib")
    )
    python = programs / Path(sys.executable).name
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel, folder=folder)
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return programs


def test_holds_the_package_and_its_type_marker_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.name.endswith("-py3-none-any.whl")  # no compiled extension
    assert "scanseg/py.typed" in names
    assert "scanseg/cli/__init__.py" in names
    data = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.json")}
    assert (
        {"scanseg/converters/splits/acdc.json", "scanseg/papers/published/results.json"} <= data <= set(names)
    )
    assert {name.split("/")[0].split("-")[0] for name in names} == {"scanseg"}


def test_runs_outside_the_checkout(scripts: Path, tmp_path: Path) -> None:
    where = run(scripts / "python", "-c", "import scanseg; print(scanseg.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(scripts.parent)
    assert "Usage: scanseg COMMAND" in run(scripts / "scanseg", "--help", folder=tmp_path)
    assert "hippocampus" in run(scripts / "scanseg", "data", "list", folder=tmp_path)
    assert "xlstm-unet-seeds" in run(scripts / "scanseg", "compare", "list", folder=tmp_path)
    facts = json.loads(run(scripts / "scanseg", "info", "--json", folder=tmp_path))
    assert facts["versions"]["scanseg"] == scanseg.__version__
