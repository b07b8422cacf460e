"""Sweep of the Triton kernels of channel norm and batch statistics.

It measures accuracy first, then times beside PyTorch's.

Usage: python benchmarks/sweeps/channel_norm.py RESULT.json
"""

import itertools
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from triton.testing import do_bench

from scanseg.ops.channel_norm import channel_norm, residual_channel_norm
from scanseg.ops.channel_norm import triton_backend as triton_gpu
from scanseg.ops.normed_depthwise import triton_backend as normed

BANDWIDTH = 2.98e12  # bytes per second, copy on the H100
BATCH = 32
TILES = list(itertools.product((1024, 2048, 4096), (264, 528, 1056)))
"""Elements per program, and programs of the backward pass."""


class Case(NamedTuple):
    """A norm of MSVM-UNet at 224x224.

    Attributes:
        kind: `plain`, `residual` (float32 stream, 16-bit branch), or `pixels`.
        channels: Channels normalised together.
        side: Side of the map.
        factor: Factor of the rearrangement.
    """

    kind: str
    channels: int
    side: int
    factor: int = 1

    @property
    def elements(self) -> int:
        """Return the elements of the map."""
        return BATCH * self.channels * (self.side * self.factor) ** 2

    @property
    def floor_us(self) -> tuple[float, float]:
        """Return the time to move the necessary bytes, forward and backward."""
        forward, backward = {"plain": (4, 6), "residual": (12, 16), "pixels": (4, 6)}[self.kind]
        return tuple(round(self.elements * passes / BANDWIDTH * 1e6, 1) for passes in (forward, backward))


CASES = [
    Case("plain", 48, 112),
    *(Case("plain", 96 * 2**stage, 56 // 2**stage) for stage in range(4)),
    *(Case("residual", 96 * 2**stage, 56 // 2**stage) for stage in range(4)),
    *(Case("pixels", channels, side, 2) for channels, side in ((384, 7), (192, 14), (96, 28))),
    Case("pixels", 96, 56, 4),
]


def draw(case: Case, dtype: torch.dtype, *, batch: int = BATCH) -> dict[str, Tensor]:
    """Draw a channels-last map, branch, parameters and gradients of the results."""
    generator = torch.Generator("cuda").manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, device="cuda", generator=generator)

    def image(channels: int, side: int) -> Tensor:
        return normal(batch, side, side, channels).permute(0, 3, 1, 2)

    inputs = {
        "x": image(case.channels * case.factor**2, case.side).to(
            torch.float32 if case.kind == "residual" else dtype
        ),
        "weight": normal(case.channels),
        "bias": normal(case.channels),
    }
    if case.kind == "residual":
        inputs["added"] = image(case.channels, case.side).to(dtype)
        inputs["grad_sum"] = image(case.channels, case.side)
        inputs["sample_scale"] = torch.ones(batch, device="cuda") * 1.25
    inputs["grad"] = image(case.channels, case.side * case.factor).to(dtype)
    return inputs


def operator(
    case: Case, inputs: dict[str, Tensor], *, backend: str, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """Run the operator as the network does."""
    x, weight, bias = inputs["x"], inputs["weight"], inputs["bias"]
    if backend == "pytorch" and x.dtype != torch.float64:  # as under autocast
        x = x.float()
    if case.kind == "residual":
        scale = inputs["sample_scale"]
        return residual_channel_norm(
            x, inputs["added"], weight, bias, sample_scale=scale, dtype=dtype, backend=backend
        )
    return (channel_norm(x, weight, bias, dtype=dtype, factor=case.factor, backend=backend),)


def run(case: Case, inputs: dict[str, Tensor], *, backend: str, dtype: torch.dtype) -> list[Tensor]:
    """Return the outputs and every gradient."""
    names = [name for name in inputs if name in ("x", "weight", "bias", "added")]
    leaves = inputs | {name: inputs[name].detach().requires_grad_() for name in names}
    results = operator(case, leaves, backend=backend, dtype=dtype)
    grads = [inputs["grad_sum"], inputs["grad"]] if case.kind == "residual" else [inputs["grad"]]
    return [
        *(result.detach() for result in results),
        *torch.autograd.grad(results, [leaves[name] for name in names], grads),
    ]


def errors(case: Case, dtype: torch.dtype) -> list[float]:
    """Return relative errors against float64: outputs, then gradients."""
    inputs = draw(case, dtype, batch=3)
    ours, again = (run(case, inputs, backend="triton", dtype=dtype) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(ours, again, strict=True)), "not deterministic"
    wide = {name: tensor.double() for name, tensor in inputs.items()}
    truth = run(case, wide, backend="pytorch", dtype=torch.float64)
    return [
        ((mine.double() - true).norm() / true.norm()).item() for mine, true in zip(ours, truth, strict=True)
    ]


def replayed(call: Callable[[], object]) -> float:
    """Return the median microseconds of a CUDA graph's replay."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return round(do_bench(graph.replay, warmup=5, rep=20, return_mode="median") * 1e3, 1)


def kernels(case: Case, inputs: dict[str, Tensor]) -> dict[str, Callable[[], object]]:
    """Return the launches of both passes, without autograd around them."""
    rows = {
        name: inputs[name].movedim(1, -1) for name in ("x", "added", "grad", "grad_sum") if name in inputs
    }
    x, added, scale = rows["x"], rows.get("added"), inputs.get("sample_scale")
    weight, bias, dtype = inputs["weight"], inputs["bias"], torch.bfloat16
    added_dtype = None if added is None else added.dtype
    grad_sum = rows.get("grad_sum", x.new_empty(0))
    return {
        "forward": lambda: triton_gpu.normalise(x, added, scale, weight, bias, 1e-5, dtype, case.factor),
        "backward": lambda: triton_gpu.norm_gradients(
            grad_sum, rows["grad"], x, scale, weight, 1e-5, case.factor, x.dtype, added_dtype
        ),
    }


def sweep(case: Case) -> dict[str, object]:
    """Time both passes for each tile, and both together beside PyTorch's."""
    inputs = draw(case, torch.bfloat16)
    row: dict[str, object] = {"case": tuple(case), "floor_us": case.floor_us}
    for backend in ("triton", "pytorch"):
        call = partial(run, case, inputs, backend=backend, dtype=torch.bfloat16)
        row[f"{backend} both_us"] = replayed(call)
    kept = triton_gpu.ELEMENTS, triton_gpu.GRADIENT_PROGRAMS
    for elements, programs in TILES:
        triton_gpu.ELEMENTS, triton_gpu.GRADIENT_PROGRAMS = elements, programs
        for name, call in kernels(case, inputs).items():
            if name == "backward" or programs == TILES[0][1]:
                label = f"{name} {elements}" + (f" {programs}" if name == "backward" else "")
                try:
                    row[label] = replayed(call)
                except Exception as error:
                    row[label] = f"failed: {error}"[:200]
    triton_gpu.ELEMENTS, triton_gpu.GRADIENT_PROGRAMS = kept
    return row


def statistics(channels: int, side: int) -> dict[str, object]:
    """Time batch statistics and their gradient beside PyTorch's batch norm with ReLU."""
    x = torch.randn(BATCH, side, side, channels, device="cuda").bfloat16()
    mean, variance = normed._statistics(x.permute(0, 3, 1, 2))
    truth = x.double().flatten(0, 2)
    assert torch.allclose(variance.double(), truth.var(0, correction=0), rtol=1e-4), "wrong variance"
    grad = torch.randn_like(x)
    ones = torch.ones(channels, device="cuda")
    call = partial(normed._add_statistics_gradient, grad, x, mean, ones, constant=mean, slope=mean)
    row: dict[str, object] = {
        "statistics": (channels, side),
        "floor_us": [round(x.numel() * passes / BANDWIDTH * 1e6, 1) for passes in (2, 6)],
        "sums_us": replayed(lambda: normed._statistics(x.permute(0, 3, 1, 2))),
        "gradient_us": replayed(call),
    }
    image, weight = x.permute(0, 3, 1, 2), ones.requires_grad_()

    def batch_norm() -> object:
        leaf = image.detach().requires_grad_()
        y = F.relu(F.batch_norm(leaf, None, None, weight, weight, training=True))
        return torch.autograd.grad(y, (leaf, weight), grad.permute(0, 3, 1, 2))

    return row | {"pytorch batch norm and ReLU both_us": replayed(batch_norm)}


def main() -> None:
    """Check, time and write a record."""
    record: dict[str, object] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    record["errors"] = checks = {}
    for case in (
        Case("plain", 96, 13),
        Case("residual", 192, 7),
        Case("pixels", 96, 5, 4),
        Case("plain", 3000, 4),
    ):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            checks[f"{tuple(case)} {dtype}"] = found = errors(case, dtype)
            print(tuple(case), dtype, [f"{value:.1e}" for value in found], flush=True)
    record["statistics"] = [statistics(*shape) for shape in ((1536, 7), (768, 14), (384, 28), (1536, 56))]
    print(*record["statistics"], sep="\n", flush=True)
    record["sweep"] = rows = []
    for case in CASES:
        rows.append(sweep(case))
        print(rows[-1], flush=True)
        torch.cuda.empty_cache()
    Path(sys.argv[1]).write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
