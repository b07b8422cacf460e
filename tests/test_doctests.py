"""The examples in docstrings run and give the output that they show.

Every public function of the modules in `MODULES` must have an example, and so must every object in `OBJECTS`, such as a
class. To check another module or object, add its name there.
"""

import doctest
import importlib
import inspect
import pkgutil
from types import FunctionType, ModuleType

import pytest

MODULES = ["scanseg.ops", "scanseg.networks"]
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


@pytest.mark.parametrize(("name", "item"), CASES)
def test_example_gives_its_output(name, item):
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
