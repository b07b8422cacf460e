"""Requests to compile a Triton kernel, which other processes can read.

Triton keeps compiled kernels on disk. So a kernel that another process has compiled is only read.
"""

import hashlib
import importlib
import inspect
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CompileRequest:
    """A kernel for a set of types."""

    module: str
    """Module of the kernel."""
    name: str
    """Name of the kernel in its module."""
    source_class: type
    """Triton's class of sources, for kernels in Triton or in Gluon."""
    signature: Mapping[str, Any]
    """Types of the arguments."""
    constants: Mapping[Any, Any]
    """Values of the compile-time arguments."""
    attributes: Mapping[Any, Any]
    """Properties of the arguments, such as alignment."""
    target: Any
    """Triton's description of the GPU."""
    options: Mapping[str, Any]
    """Triton's options."""
    environment: Mapping[str, Any]
    """Variables of the environment that change the result."""
    cache: str
    """Folder of Triton's cache."""

    def compile(self) -> None:
        """Compile the kernel into Triton's cache.

        Raises:
            RuntimeError: This process has another environment.
        """
        from triton import compile as compile_by_triton
        from triton import knobs
        from triton.compiler.compiler import get_cache_invalidating_env_vars

        if get_cache_invalidating_env_vars() != self.environment:
            raise RuntimeError("the environment of this process differs")
        knobs.cache.dir = self.cache
        kernel = getattr(importlib.import_module(self.module), self.name)
        source = self.source_class(kernel, self.signature, self.constants, self.attributes)
        compile_by_triton(source, target=self.target, options=dict(self.options))


def request_of(key: str, compile_kernel: Callable[[], Any]) -> bytes | None:
    """Return the request of a kernel for another process.

    Args:
        key: Triton's key of the kernel.
        compile_kernel: Triton's function that compiles it.

    Returns:
        A pickled `CompileRequest`. `None`: the kernel is compiled already, or another process cannot compile it.
    """
    from triton import knobs

    try:
        used = inspect.getclosurevars(compile_kernel).nonlocals
        source, kernel = used["src"], used["src"].fn
        if _is_kept(key, source.name):
            return None
        if getattr(importlib.import_module(kernel.__module__), kernel.__name__) is not kernel:
            return None
        request = CompileRequest(
            kernel.__module__,
            kernel.__name__,
            type(source),
            source.signature,
            source.constants,
            source.attrs,
            used["target"],
            dict(vars(used["options"])),
            used["env_vars"],
            knobs.cache.dir,
        )
        return pickle.dumps(request)
    except Exception:  # Triton's parts have other names, or a value cannot be pickled
        return None


def _is_kept(key: str, name: str) -> bool:
    """Return whether Triton's cache on disk has a kernel."""
    from triton.runtime.cache import get_cache_manager

    metadata = f"{name[:150]}.json"
    group = get_cache_manager(hashlib.sha256(key.encode()).hexdigest()).get_group(metadata)
    return group is not None and metadata in group
