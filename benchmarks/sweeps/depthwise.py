"""Sweep of the tiles of the depthwise convolutions' Triton kernels.

It measures accuracy first, then times beside cuDNN's.

Usage: python benchmarks/sweeps/depthwise.py RESULT.json
"""

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from triton.testing import do_bench

from scanseg.ops.depthwise import depthwise_conv
from scanseg.ops.depthwise.triton_launch import BACKWARD, FORWARD, Before, Tile, convolve, gradients
from scanseg.ops.normed_depthwise import normed_depthwise_conv

BANDWIDTH = 2.98e12  # bytes per second, copy on the H100
BATCH = 32


class Case(NamedTuple):
    """A convolution of MSVM-UNet at 224x224."""

    kind: str
    channels: int
    side: int

    @property
    def size(self) -> int:
        """Return the size of the kernels."""
        return 5 if self.kind == "multi-scale" else 3

    @property
    def elements(self) -> int:
        """Return the elements of the map."""
        return BATCH * self.channels * self.side**2


CASES = [
    *(Case("silu", 96 * 2**stage, 56 // 2**stage) for stage in range(4)),
    *(Case("multi-scale", 384 * 2**stage, 56 // 2**stage) for stage in range(3)),
    *(Case("normed", channels, side) for channels, side in ((1536, 7), (768, 14), (384, 28), (1536, 56))),
]

TILES = {
    ("forward", 3): [
        Tile(4, 3),
        Tile(4, 4),
        Tile(4, 2),
        Tile(4, 3, 8),
        Tile(2, 3),
        Tile(4, 3, programs=2112),
    ],
    ("backward", 3): [
        *(Tile(4, group, programs=528) for group in (1, 2, 3)),
        Tile(2, 3, programs=528),
        Tile(4, 2, programs=264),
        Tile(4, 2, programs=1056),
        Tile(4, 2, 8, programs=264),
    ],
    ("forward", 5): [
        Tile(2, 4),
        Tile(2, 2),
        Tile(4, 2),
        Tile(1, 4),
        Tile(2, 4, 8),
        Tile(2, 3),
        Tile(2, 4, programs=2112),
    ],
    ("backward", 5): [
        *(Tile(2, group, programs=528) for group in (1, 2, 4)),
        *(Tile(1, group, programs=528) for group in (2, 4)),
        Tile(2, 2, programs=264),
        Tile(2, 2, programs=1056),
        Tile(1, 2, 8, programs=528),
    ],
}


def draw(case: Case, dtype: torch.dtype, *, batch: int = BATCH) -> dict[str, Tensor]:
    """Draw a channels-last map, its parameters and the gradient of the result."""
    generator = torch.Generator("cuda").manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, device="cuda", generator=generator)

    shape, channels = (batch, case.side, case.side, case.channels), case.channels
    inputs = {
        "x": normal(*shape).to(dtype).permute(0, 3, 1, 2),
        "weight": normal(channels, 1, case.size, case.size) / case.size,
        "grad": normal(*shape).to(dtype).permute(0, 3, 1, 2),
    }
    if case.kind == "normed":
        inputs |= {name: normal(channels) for name in ("bias", "norm_weight", "norm_bias")}
    return inputs


def operator(case: Case, inputs: dict[str, Tensor], *, backend: str) -> Tensor:
    """Run the operator as the network does."""
    x, weight = inputs["x"], inputs["weight"]
    if case.kind == "normed":
        named = {name: inputs[name] for name in ("bias", "norm_weight", "norm_bias")}
        running = {
            name: torch.zeros(x.shape[1], device="cuda", dtype=weight.dtype)
            for name in ("running_mean", "running_var")
        }
        return normed_depthwise_conv(x, weight, **named, **running, momentum=0.1, backend=backend)
    if case.kind == "silu":
        return depthwise_conv(x, weight, activation="silu", backend=backend)
    return depthwise_conv(x, weight, input_activation="gelu", residual=True, backend=backend)


def run(case: Case, inputs: dict[str, Tensor], *, backend: str) -> list[Tensor]:
    """Return the output and every gradient."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in inputs.items() if name != "grad"}
    y = operator(case, leaves, backend=backend)
    return [y.detach(), *torch.autograd.grad(y, list(leaves.values()), inputs["grad"])]


def errors(case: Case, dtype: torch.dtype) -> dict[str, float]:
    """Return relative errors against float64, by name."""
    inputs = draw(case, dtype, batch=3)
    names = ["output", *(name for name in inputs if name != "grad")]
    ours, again = (run(case, inputs, backend="triton") for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(ours, again, strict=True)), "not deterministic"
    truth = run(case, {name: tensor.double() for name, tensor in inputs.items()}, backend="pytorch")
    return {
        name: ((mine.double() - true).norm() / true.norm()).item()
        for name, mine, true in zip(names, ours, truth, strict=True)
    }


def replayed(call: Callable[[], object]) -> float:
    """Return the median milliseconds of a CUDA graph's replay."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return do_bench(graph.replay, warmup=5, rep=20, return_mode="median")


def kernel_calls(case: Case, inputs: dict[str, Tensor]) -> dict[str, Callable[[Tile], object]]:
    """Return the launches of the convolution and its gradients for a tile."""
    x, grad = (inputs[name].permute(0, 2, 3, 1) for name in ("x", "grad"))
    taps = inputs["weight"].flatten(1).t().contiguous()
    before = None
    if case.kind == "normed":
        before = Before(inputs["bias"], inputs["norm_weight"], inputs["norm_bias"])
    pre = x if case.kind == "silu" else None
    residual = case.kind == "multi-scale"

    def forward(tile: Tile) -> object:
        return convolve(
            x,
            taps,
            inputs.get("bias"),
            before=before,
            silu=pre is not None,
            residual=residual,
            save_pre=pre is not None,
            tile=tile,
        )

    def backward(tile: Tile) -> object:
        return gradients(
            grad,
            x,
            pre,
            taps,
            before=before,
            gelu=residual,
            has_bias=before is not None,
            residual=residual,
            tile=tile,
        )

    return {"forward": forward, "backward": backward}


def compile_all() -> None:
    """Compile every kernel of the sweep, several at a time."""
    calls = []
    for kind, channels in (("silu", 96), ("silu", 192), ("multi-scale", 384), ("normed", 384)):
        case = Case(kind, channels, 28)
        for direction, call in kernel_calls(case, draw(case, torch.bfloat16, batch=1)).items():
            calls += [(call, tile) for tile in TILES[direction, case.size]]

    def attempt(pair: tuple[Callable[[Tile], object], Tile]) -> None:
        try:
            pair[0](pair[1])
        except Exception as error:
            print(f"{pair[1]}: {error}"[:300], flush=True)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(attempt, calls))
    torch.cuda.synchronize()


def sweep(case: Case) -> Iterator[dict[str, object]]:
    """Time the kernels for each tile."""
    inputs = draw(case, torch.bfloat16)
    for direction, call in kernel_calls(case, inputs).items():
        table = FORWARD if direction == "forward" else BACKWARD
        tiles = TILES[direction, case.size]
        passes = {"forward": 2, "backward": 3}[direction] + (case.kind == "silu")
        row: dict[str, object] = {"case": case, "direction": direction}
        row["floor_us"] = round(case.elements * 2 * passes / BANDWIDTH * 1e6, 1)
        for tile in [table[case.size], *(tile for tile in tiles if tile != table[case.size])]:
            try:
                row[str(tuple(tile))] = round(replayed(partial(call, tile)) * 1e3, 1)
            except Exception as error:
                row[str(tuple(tile))] = f"failed: {error}"[:200]
        yield row


def compare(case: Case) -> dict[str, object]:
    """Time the whole operator, forward and with backward, beside PyTorch's."""
    inputs = draw(case, torch.bfloat16)
    row: dict[str, object] = {"case": case}
    with torch.no_grad():
        for backend in ("triton", "pytorch"):
            row[f"{backend} forward_us"] = round(
                replayed(lambda b=backend: operator(case, inputs, backend=b)) * 1e3, 1
            )
    for backend in ("triton", "pytorch"):
        row[f"{backend} both_us"] = round(replayed(lambda b=backend: run(case, inputs, backend=b)) * 1e3, 1)
    x, grad = inputs["x"].detach().requires_grad_(), inputs["grad"]
    weight = inputs["weight"].bfloat16().requires_grad_()

    def bare() -> object:
        y = F.conv2d(x, weight, padding=case.size // 2, groups=case.channels)
        return torch.autograd.grad(y, (x, weight), grad)

    row["cudnn convolution alone both_us"] = round(replayed(bare) * 1e3, 1)
    return row


def main() -> None:
    """Check, time and write a record."""
    record: dict[str, object] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    small = [Case("silu", 96, 13), Case("multi-scale", 192, 9), Case("normed", 72, 11)]
    record["errors"] = checks = {}
    for case in small:
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            checks[f"{case.kind} {dtype}"] = errors(case, dtype)
            print(
                case.kind,
                dtype,
                {key: f"{value:.1e}" for key, value in errors(case, dtype).items()},
                flush=True,
            )
    compile_all()
    record["operators"], record["sweep"] = [], []
    for case in CASES:
        for name, rows in (("operators", [compare(case)]), ("sweep", sweep(case))):
            for row in rows:
                record[name].append(row)
                print(
                    {key: tuple(value) if key == "case" else value for key, value in row.items()}, flush=True
                )
        torch.cuda.empty_cache()
    Path(sys.argv[1]).write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
