"""Triton's interpreter without work that it repeats.

Before a kernel, and again before each function that a kernel calls, the interpreter lists all members of Triton's
modules and replaces those that compile by its own. That takes more than half of the time of the tests of kernels. Here
the names are found once, and a function inside a kernel keeps what was replaced for the kernel. The type of a block is
described once too.
"""

import inspect
from functools import cache
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import pytest


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace parts of the interpreter, which compute the same."""
    find_builtins_once(monkeypatch)
    describe_types_once(monkeypatch)


def describe_types_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy the fields of types of blocks, and of tensors of such types."""
    from triton.language import core

    make_block, make_tensor = core.block_type.__init__, core.tensor.__init__
    described: dict[tuple[object, ...], dict[str, Any]] = {}

    def block(self: Any, element_ty: Any, shape: Any) -> None:
        element = (type(element_ty), element_ty.name, getattr(element_ty, "address_space", None))
        key = (*element, *(getattr(size, "value", size) for size in shape))
        if key not in described:
            make_block(self, element_ty, shape)
            described[key] = {**vars(self), "fields_of_tensors": {}}
        vars(self).update(described[key])

    def tensor(self: Any, handle: object, type: Any) -> None:
        fields = vars(type).get("fields_of_tensors")
        if not fields:
            make_tensor(self, handle, type)
        if fields is not None:
            fields.update(fields or {name: value for name, value in vars(self).items() if name != "handle"})
            vars(self).update(fields, handle=handle, type=type)

    monkeypatch.setattr(core.block_type, "__init__", block)
    monkeypatch.setattr(core.tensor, "__init__", tensor)


def find_builtins_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace what compiles once for each kernel, without a search."""
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
