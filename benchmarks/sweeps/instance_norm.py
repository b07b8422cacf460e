"""Sweep of the instance norm's Triton kernels.

It measures accuracy first, then times of formats, backends and tiles.

Usage: python benchmarks/sweeps/instance_norm.py RESULT.json
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from triton.testing import do_bench

from scanseg.ops.instance_norm import instance_norm
from scanseg.ops.instance_norm import triton_launch as gpu_launch
from scanseg.ops.instance_norm.triton_launch import Passes, Tile

# The maps of xLSTM-UNet at 13x3x384x640 and 2x1x48x160x224.
SHAPES = [
    (13, 32, 384, 640),
    (13, 64, 192, 320),
    (13, 128, 96, 160),
    (13, 256, 48, 80),
    (13, 512, 24, 40),
    (13, 512, 6, 10),
    (1, 32, 384, 640),
    (2, 32, 48, 160, 224),
    (2, 64, 48, 80, 112),
    (2, 128, 24, 40, 56),
    (2, 256, 12, 20, 28),
    (2, 320, 6, 10, 14),
    (2, 320, 6, 5, 7),
]
NARROW, WIDE = [(2, 32, 48, 160, 224), (1, 32, 384, 640)], [(2, 64, 48, 80, 112), (13, 256, 48, 80)]
# Tiles of the summing pass and of the writing pass.
CANDIDATES = {
    "narrow": [
        Passes(Tile(128, 32, 4), Tile(256, 32, 8)),
        Passes(Tile(256, 32, 8), Tile(128, 32, 4)),
        Passes(Tile(64, 32, 4), Tile(64, 32, 4)),
        Passes(Tile(128, 32, 8), Tile(128, 32, 8)),
    ],
    "wide": [
        Passes(Tile(64, 64, 4), Tile(128, 64, 8)),
        Passes(Tile(128, 64, 8), Tile(64, 64, 4)),
        Passes(Tile(32, 64, 4), Tile(32, 64, 4)),
        Passes(Tile(64, 64, 8), Tile(64, 64, 8)),
    ],
}
NAMES = ("output", "x", "weight", "bias", "residual")
BANDWIDTH = 2.98e12
"""Bytes per second of a device copy on the H100."""


def make_inputs(
    shape: tuple[int, ...], *, dtype: torch.dtype, residual: bool, channels_last: bool, mean: float = 0.5
) -> list[Tensor]:
    """Draw a map, weight, bias and, if requested, a residual."""
    normal = partial(torch.randn, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    memory_format = torch.contiguous_format
    if channels_last:
        memory_format = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    maps = [
        (mean + normal(shape)).to(dtype).contiguous(memory_format=memory_format) for _ in range(1 + residual)
    ]
    return [maps[0], normal(shape[1]), normal(shape[1]), *maps[1:]]


def run(inputs: list[Tensor], grad: Tensor, *, backend: str) -> list[Tensor]:
    """Return the output and every gradient."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    y = forward(leaves, backend=backend)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad)]


def forward(inputs: list[Tensor], *, backend: str) -> Tensor:
    """Return the output."""
    x, weight, bias, *rest = inputs
    residual = rest[0] if rest else None
    return instance_norm(x, weight, bias, residual=residual, negative_slope=0.01, backend=backend)


def errors(
    shape: tuple[int, ...], *, dtype: torch.dtype, residual: bool, channels_last: bool, mean: float
) -> dict[str, float]:
    """Return relative errors against float64, by name.

    The operator has no matrix products, so TF32 changes nothing.
    """
    inputs = make_inputs(shape, dtype=dtype, residual=residual, channels_last=channels_last, mean=mean)
    grad = torch.randn_like(inputs[0])
    result, repeated = (run(inputs, grad, backend="triton") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(result, repeated, strict=True)), "not deterministic"
    truth = run([tensor.double() for tensor in inputs], grad.double(), backend="reference")
    return {
        name: ((ours.double() - true).norm() / true.norm()).item()
        for name, ours, true in zip(NAMES, result, truth, strict=False)
    }


def replayed(call: Callable[[], object]) -> float:
    """Return the median milliseconds of a CUDA graph's replay."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return do_bench(graph.replay, warmup=5, rep=25, return_mode="median")


def times(
    shape: tuple[int, ...], *, backend: str, residual: bool, channels_last: bool, graph: bool = True
) -> dict[str, float]:
    """Return milliseconds in bf16 and the floor of the passes over memory.

    The times are of forward, and of forward and backward.
    """
    inputs = make_inputs(shape, dtype=torch.bfloat16, residual=residual, channels_last=channels_last)
    leaves = [tensor.requires_grad_() for tensor in inputs]
    grad = torch.randn_like(inputs[0])

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(forward(leaves, backend=backend), leaves, grad)

    measure = replayed if graph else partial(do_bench, warmup=5, rep=25, return_mode="median")
    with torch.no_grad():
        alone = measure(partial(forward, inputs, backend=backend))
    size = inputs[0].numel() * 2 / BANDWIDTH * 1e3
    return {"forward": alone, "both": measure(both), "floor": size * (11 if residual else 8)}


@contextmanager
def tiles(width: str, passes: Passes) -> Iterator[None]:
    """Use other tiles for channels-last maps in this block."""
    before = gpu_launch.CHANNELS_LAST
    gpu_launch.CHANNELS_LAST = before._replace(**{width: passes})
    try:
        yield
    finally:
        gpu_launch.CHANNELS_LAST = before


def attempt(title: str, measure: Callable[[], dict[str, float]], rows: list[dict[str, object]]) -> None:
    """Measure, print and record a row, also if it fails."""
    try:
        row: dict[str, object] = {"row": title, **measure()}
    except Exception as error:
        row = {"row": title, "failed": f"{type(error).__name__}: {str(error)[:200]}"}
    rows.append(row)
    shown = (f"{key} {value:.3g}" if isinstance(value, float) else str(value) for key, value in row.items())
    print("  ".join(shown), flush=True)


def main() -> None:
    """Run the sweep."""
    record: dict[str, list[dict[str, object]]] = {"errors": [], "times": [], "tiles": []}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for shape in ((2, 48, 37, 41), (2, 33, 9, 10, 14), (2, 40, 5, 25)):
            for residual, channels_last in ((False, True), (True, True), (True, False)):
                title = f"{dtype} {shape} residual={residual} last={channels_last}"
                call = partial(
                    errors, shape, dtype=dtype, residual=residual, channels_last=channels_last, mean=0.5
                )
                attempt(title, call, record["errors"])
    call = partial(
        errors, (2, 32, 300, 200), dtype=torch.float32, residual=True, channels_last=True, mean=1e3
    )
    attempt("mean 1e3", call, record["errors"])
    for shape in SHAPES:
        for residual in (False, True):
            for backend, channels_last in (("pytorch", False), ("triton", True), ("triton", False)):
                if backend == "triton" and not channels_last and residual:
                    continue
                title = f"{shape} residual={residual} {backend} last={channels_last}"
                call = partial(times, shape, backend=backend, residual=residual, channels_last=channels_last)
                attempt(title, call, record["times"])
    call = partial(times, SHAPES[-1], backend="triton", residual=True, channels_last=True, graph=False)
    attempt("small, launched one by one", call, record["times"])
    for width, shapes in (("narrow", NARROW), ("wide", WIDE)):
        for passes in CANDIDATES[width]:
            for shape in shapes:
                with tiles(width, passes):
                    title = f"{shape} sum {tuple(passes.sum)} write {tuple(passes.write)}"
                    call = partial(times, shape, backend="triton", residual=True, channels_last=True)
                    attempt(title, call, record["tiles"])
    for programs in (528, 2112):
        gpu_launch.NUM_PROGRAMS = programs
        for shape in (NARROW[0], WIDE[1]):
            call = partial(times, shape, backend="triton", residual=True, channels_last=True)
            attempt(f"{shape} {programs} programs", call, record["tiles"])
    gpu_launch.NUM_PROGRAMS = 1056
    gpu_launch.COMBINE = Tile(512, 16, 16)
    call = partial(times, NARROW[0], backend="triton", residual=True, channels_last=True)
    attempt(f"{NARROW[0]} up to 512 chunks", call, record["tiles"])
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
