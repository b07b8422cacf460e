"""Structure of the source code: packages, exported names, owners of file names, complexity, import cycles.

`lint-imports` checks the order of the packages. Maxima in this module may only fall.
"""

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "scanseg"
MOST_COMPLEX_FUNCTIONS = 3
"""Functions of a McCabe complexity above 10."""

PUBLIC_PACKAGES = {"scanseg", "scanseg.networks", "scanseg.ops", "scanseg.layers", "scanseg.specs"}
"""Packages for use in other people's code: their names need no use here."""
INNER_PACKAGES = ("scanseg.networks.published", "scanseg.batches.augmentation")
"""Packages inside others that are used through their `__init__` too."""
RESULTS = {"JobStatus", "Prediction", "RemoteCase"}
"""Types that functions of the package return to users."""
OWNER_OF_MODEL_FILES = "scanseg.models"


class Import(NamedTuple):
    """An imported module, or a name of it."""

    importer: str
    line: int
    module: str
    name: str | None

    def __str__(self) -> str:
        """Return the importing line and the imported object."""
        return f"{self.importer}:{self.line} imports {self.module} {self.name or ''}"


def module_name(path: Path) -> str:
    """Return the dotted name of a source file."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}
PACKAGES = sorted(
    name
    for name, path in MODULES.items()
    if path.name == "__init__.py" and (name.count(".") == 1 or name in INNER_PACKAGES)
)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def exported_names(package: str) -> frozenset[str]:
    """Return the names in the `__all__` of a package."""
    if package not in MODULES:
        return frozenset()
    for node in parsed(MODULES[package]).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return frozenset(ast.literal_eval(node.value))
    return frozenset()


def imports_of(importer: str, path: Path) -> Iterator[Import]:
    """Yield the imports of scanseg in a file, at any depth."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(importer, node.lineno, alias.name, None)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in MODULES and alias.name not in exported_names(node.module):
                    yield Import(importer, node.lineno, whole, None)
                else:
                    yield Import(importer, node.lineno, node.module, alias.name)


@cache
def imports() -> list[Import]:
    """Return the imports between modules of the package."""
    found = (each for name, path in MODULES.items() for each in imports_of(name, path))
    return [each for each in found if each.module in MODULES]


def package_of(module: str) -> str:
    """Return the package of a module, which is the innermost one that counts."""
    for package in INNER_PACKAGES:
        if module == package or module.startswith(f"{package}."):
            return package
    return ".".join(module.split(".")[:2])


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def test_packages_are_used_through_their_public_names():
    """Modules of an inner package may import modules of the outer one, which is not complete yet."""
    wrong = [
        each
        for each in imports()
        if package_of(each.module) in PACKAGES
        and each.module != package_of(each.module)
        and not is_within(each.importer, package_of(each.module))
    ]
    assert wrong == [], "\n".join(map(str, wrong))


@pytest.mark.parametrize("package", ["scanseg", *PACKAGES])
def test_every_public_name_is_defined(package):
    module = importlib.import_module(package)
    missing = [name for name in getattr(module, "__all__", ()) if not hasattr(module, name)]
    assert missing == []
    assert sorted(set(getattr(module, "__all__", ()))) == sorted(getattr(module, "__all__", ()))


@cache
def outer_uses() -> frozenset[tuple[str, str]]:
    """Return (package, name) of imports in benchmarks and scripts, and in Python examples of pages."""
    found = set()
    for folder in ("benchmarks", "scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            found |= {(each.module, each.name) for each in imports_of(path.stem, path)}
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        text = page.read_text(encoding="utf-8")
        for module, names in re.findall(r"from (scanseg[\w.]*) import ([\w, ]+)", text):
            found |= {(module, name.strip()) for name in names.split(",")}
        found |= set(re.findall(r"(scanseg\.[\w.]+)\.(\w+)", text))
    return frozenset(found)


@pytest.mark.parametrize("package", [package for package in PACKAGES if package not in PUBLIC_PACKAGES])
def test_every_public_name_is_used_elsewhere(package):
    """Names that only their own package or tests use are not public."""
    used = {
        each.name
        for each in imports()
        if each.module == package and not is_within(each.importer, package) and each.name
    }
    used |= {name for module, name in outer_uses() if module == package}
    last = package.rpartition(".")[2]
    used |= {attribute for owner, value, attribute in attributes() if value == last and owner != package}
    assert sorted(exported_names(package) - used - RESULTS) == []


@cache
def attributes() -> frozenset[tuple[str, str, str]]:
    """Return (package, name, attribute) of each `name.attribute` in the code."""
    return frozenset(
        (package_of(module), node.value.id, node.attr)
        for module, path in MODULES.items()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    )


def code_literals(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the strings of a file without docstrings. Values in f-strings become asterisks."""
    docstrings = {id(node.value) for node in ast.walk(parsed(path)) if isinstance(node, ast.Expr)}
    inside = {
        id(part) for node in ast.walk(parsed(path)) if isinstance(node, ast.JoinedStr) for part in node.values
    }
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "*" for part in node.values]
            yield node.lineno, "".join(parts)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docstrings | inside
        ):
            yield node.lineno, node.value


MODEL_FILE = re.compile(
    r"(plan|run|validation|ensemble)\.json|metrics\.jsonl|curves\.png|test-.*\.json|\w+\.safetensors"
)
"""Names of files in a model folder."""


def test_model_files_are_named_in_one_package():
    """Other packages ask `ModelFolder` for a file, so that a name is written once."""
    found = [
        f"{name}:{line} {text}"
        for name, path in MODULES.items()
        if not is_within(name, OWNER_OF_MODEL_FILES)
        for line, text in code_literals(path)
        if MODEL_FILE.fullmatch(text.rpartition("/")[2])
    ]
    assert found == [], "\n".join(found)


def test_few_functions_are_complex():
    """The maximum may only fall. Exceptions have a reason in `pyproject.toml`."""
    words = (
        "ruff",
        "check",
        "--isolated",
        "--ignore-noqa",
        "--exit-zero",
        "--output-format=json",
        "--select=C901",
    )
    limit = ("--config", "lint.mccabe.max-complexity=10")
    process = subprocess.run(
        [sys.executable, "-m", *words, *limit, str(SOURCE)], capture_output=True, text=True, check=True
    )
    found = [f"{each['filename']}: {each['message']}" for each in json.loads(process.stdout)]
    assert len(found) <= MOST_COMPLEX_FUNCTIONS, "\n".join(found)


def test_no_modules_import_each_other():
    """Imports in functions count. Imports for type checkers, and of the packages above a module, do not."""
    graph = {name: set() for name in MODULES}
    for each in imports():
        if each.importer != "scanseg" and each.line not in lines_for_type_checkers(each.importer):
            graph[each.importer].add(each.module)
    assert cycles(graph) == []


@cache
def lines_for_type_checkers(module: str) -> frozenset[int]:
    """Return the lines of a module under `if TYPE_CHECKING`."""
    return frozenset(
        line
        for node in ast.walk(parsed(MODULES[module]))
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for line in range(node.lineno, node.end_lineno + 1)
    )


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of nodes that reach each other."""

    def reach(start: str) -> set[str]:
        reached, waiting = set(), [start]
        while waiting:
            new = graph[waiting.pop()] - reached
            reached |= new
            waiting += new
        return reached

    reached = {name: reach(name) for name in graph}
    groups = {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in graph
        if name in reached[name]
    }
    return sorted(sorted(group) for group in groups)


def test_cycles_are_found():
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


def test_strings_of_code_are_found(tmp_path):
    path = tmp_path / "module.py"
    path.write_text('"""plan.json"""\nname = "plan.json"\nother = f"test-{name}.json"\n')
    assert list(code_literals(path)) == [(2, "plan.json"), (3, "test-*.json")]
    assert all(MODEL_FILE.fullmatch(text) for _, text in code_literals(path))
