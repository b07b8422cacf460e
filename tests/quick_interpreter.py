"""Triton's interpreter without the search that it repeats at each call of a function.

Before a kernel, and again before each function that a kernel calls, the interpreter lists all members of Triton's
modules and replaces those that compile by its own. That takes more than half of the time of the tests of kernels. Here
the names are found once, and a function inside a kernel keeps what was replaced for the kernel.
"""

import inspect
from functools import cache
from types import FunctionType, ModuleType, SimpleNamespace

import pytest


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace parts of the interpreter, which compute the same."""
    from triton import language
    from triton.language.core import is_builtin
    from triton.runtime import interpreter

    @cache
    def builtins_of(owner: object) -> list[str]:
        return [name for name, member in inspect.getmembers(owner) if is_builtin(member)]

    def getmembers(owner: object) -> list[tuple[str, object]]:
        return [(name, getattr(owner, name)) for name in builtins_of(owner)]

    @cache
    def languages(function: FunctionType) -> frozenset[ModuleType]:
        values = [value for value in function.__globals__.values() if inspect.ismodule(value)]
        return frozenset(value for value in values if value in (language, language.core))

    patched: set[ModuleType] = set()
    patch, call = interpreter._patch_lang, interpreter.GridExecutor.__call__

    def patch_once(function: FunctionType) -> object:
        if languages(function) <= patched:
            return None  # only the scope of a kernel is used
        patched.update(languages(function))
        return patch(function)

    def run(kernel: object, *arguments: object, **options: object) -> object:
        patched.clear()
        return call(kernel, *arguments, **options)

    members = {**vars(inspect), "getmembers": getmembers}
    monkeypatch.setattr(interpreter, "inspect", SimpleNamespace(**members))
    monkeypatch.setattr(interpreter, "_patch_lang", patch_once)
    monkeypatch.setattr(interpreter.GridExecutor, "__call__", run)
