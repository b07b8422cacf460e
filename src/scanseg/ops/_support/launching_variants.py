"""Launches of compiled Triton kernels without Triton's binding of arguments.

For each launch Triton binds the arguments to the kernel's signature, computes the variant of the kernel from their
types, values and alignments, and checks every pointer, which takes about 12 us. `run_compiled` looks the variant up by
a key that distinguishes at least as much, and passes addresses. The first launch of each key is Triton's own.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scanseg.ops._support.triton import INTERPRETED

KNOWN_VERSIONS = ((3, 6), (3, 9))
"""First and last version of Triton with the launcher that this module calls. Others bind arguments themselves."""

USABLE: bool = torch.version.cuda is not None and not INTERPRETED
"""Whether kernels run on GPUs of NVIDIA."""

MOST_VARIANTS = 4096
"""Number of keys after which the cache is emptied. A network has a few hundred."""


class Variant(NamedTuple):
    """A compiled kernel, ready to run.

    Attributes:
        run: Triton's launcher, or the function behind it.
        options: Arguments of that function which the launcher adds.
        function: The loaded function.
        metadata: Triton's description of the kernel for its launcher.
        constants: Values of the compile-time arguments, which follow the others.
        hooks: Triton's hooks before launches, which profilers set.
        kernel: The kernel, kept alive because its identity is a part of the key.
    """

    run: Callable[..., None]
    options: tuple[Any, ...]
    function: Any
    metadata: Any
    constants: tuple[Any, ...]
    hooks: Any
    kernel: Any


_variants: dict[tuple[Any, ...], Variant] = {}


def run_compiled(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> Variant | None:
    """Launch a kernel, and return its variant for launches like this one.

    Args:
        kernel: A function under `triton.jit`, a global of its module.
        grid: Number of programs along one to three axes.
        *arguments: The first arguments of the kernel, tensors and numbers. Tensors are on the current device.
        **constants: The compile-time arguments, which are the last ones of the kernel, and Triton's options.
    """
    device = torch._C._cuda_getDevice()
    key: list[Any] = [id(kernel), device, *constants, *constants.values()]
    passed: list[Any] = []
    for argument in arguments:
        if type(argument) is int:  # its value may be compiled into a variant
            passed.append(argument)
            key.append(argument)
        elif isinstance(argument, Tensor):
            address = argument.data_ptr()
            passed.append(address)
            key.append(argument.dtype)
            if address & 15:  # Triton's limit of alignment
                key.append("unaligned")
        else:
            passed.append(argument)
            key.append(type(argument))
    variant = _variants.get(tuple(key))
    if variant is None or variant.hooks.calls:
        return _launch_by_triton(kernel, grid, arguments, constants, tuple(key))
    columns, rows, layers = (*grid, 1, 1)[:3]
    stream = torch._C._cuda_getCurrentRawStream(device)
    run, options, function, metadata, values, _, _ = variant
    run(columns, rows, layers, stream, function, *options, metadata, None, None, None, *passed, *values)
    return variant


def build_launcher(kernel: Any) -> None:
    """Build the C function that launches a kernel.

    Triton 3.6 runs a C compiler for it at the first launch of each signature, 0.2 s one after the other, and keeps the
    result on disk. Errors are left to that launch.

    Args:
        kernel: A compiled kernel.
    """
    from triton.runtime import driver

    with suppress(Exception):
        driver.active.launcher_cls(kernel.src, kernel.metadata)


def _launch_by_triton(
    kernel: Any,
    grid: tuple[int, ...],
    arguments: tuple[Any, ...],
    constants: dict[str, Any],
    key: tuple[Any, ...],
) -> Variant | None:
    """Launch a kernel by Triton and keep the variant."""
    import triton

    compiled = kernel[grid](*arguments, **constants)
    names = kernel.arg_names[len(arguments) :]
    version = tuple(map(int, triton.__version__.split(".")[:2]))
    is_known = KNOWN_VERSIONS[0] <= version <= KNOWN_VERSIONS[1]
    if not is_known or any(name not in constants for name in names):
        return None
    if len(_variants) >= MOST_VARIANTS:
        _variants.clear()
    variant = _variants[key] = Variant(
        *_launcher(compiled.run, version),
        compiled.function,
        compiled.packed_metadata,
        tuple(constants[name] for name in names),
        triton.knobs.runtime.launch_enter_hook,
        kernel,
    )
    return variant


class PlannedLaunch:
    """A launch whose grid, numbers, constants and dtypes never change.

    It only reads the addresses of the tensors. Whoever keeps it distinguishes the dtypes of all tensors.

    Args:
        kernel: A function under `triton.jit`, a global of its module.
        grid: Number of programs along one to three axes.
        numbers: Arguments of the kernel after its tensors.
        **constants: The compile-time arguments, and Triton's options.
    """

    def __init__(
        self,
        kernel: Any,
        grid: tuple[int, ...],
        numbers: tuple[int | float, ...],
        **constants: Any,
    ) -> None:
        self.kernel, self.grid, self.numbers, self.constants = kernel, grid, numbers, constants
        self._ready: dict[int, tuple[Any, ...]] = {}

    def run(self, addresses: list[int], tensors: tuple[Tensor, ...]) -> None:
        """Launch the kernel.

        Args:
            addresses: Addresses of the tensors.
            tensors: The tensors, on the current device.
        """
        device = torch._C._cuda_getDevice()
        ready = self._ready.get(device)
        is_aligned = not reduce(or_, addresses) & 15
        if ready is not None and is_aligned and not ready[0].calls:
            _, run, grid, middle, last = ready
            run(*grid, torch._C._cuda_getCurrentRawStream(device), *middle, *addresses, *last)
            return
        variant = run_compiled(self.kernel, self.grid, *tensors, *self.numbers, **self.constants)
        if variant is not None and is_aligned:
            middle = (variant.function, *variant.options, variant.metadata, None, None, None)
            last = (*self.numbers, *variant.constants)
            self._ready[device] = (variant.hooks, variant.run, (*self.grid, 1, 1)[:3], middle, last)


def _launcher(run: Any, version: tuple[int, ...]) -> tuple[Callable[..., None], tuple[Any, ...]]:
    """Return a launching function and its options after the kernel's handle.

    The launcher of Triton 3.6 allocates scratch memory and calls an inner function. Kernels without such memory need
    only the inner function.
    """
    names = ("launch", "launch_cooperative_grid", "launch_pdl", "global_scratch_size", "profile_scratch_size")
    if version != (3, 6) or not all(hasattr(run, name) for name in names):
        return run, ()
    if run.global_scratch_size or run.profile_scratch_size:
        return run, ()
    return run.launch, (run.launch_cooperative_grid, run.launch_pdl, None, None)
