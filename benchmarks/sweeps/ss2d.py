"""Sweep of the four-direction scan's kernels: tiles in Triton (float32), walks in Gluon (bfloat16).

It measures accuracy first, then times.

Usage: python benchmarks/sweeps/ss2d.py RESULT.json
"""

import itertools
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from triton.testing import do_bench

from scanseg.ops.ss2d import gluon_backend, ss2d_scan
from scanseg.ops.ss2d import triton_backend as triton_gpu

STAGES = {"S1": (96, 56), "S2": (192, 28), "S3": (384, 14), "S4": (768, 7)}
TILES = {
    "forward": [(32, 32), (32, 16), (16, 32), (64, 16)],
    "backward": [(32, 16), (16, 16), (16, 32), (32, 32)],
}
WARPS = (1, 2, 4, 8)
WALKS = [
    gluon_backend.Walk(warps, warps, tokens, programs, registers)
    for warps, tokens, programs, registers in itertools.product(WARPS, (4, 8), (1, 2), (None, 168))
]
NAMES = ("output", "x", "projected", "dt_weight", "dt_bias", "A_log", "D_skip")


def make_inputs(dim: int, size: int, *, batch: int, dtype: torch.dtype, state: int = 1) -> list[Tensor]:
    """Draw inputs as in MSVM-UNet.

    Step sizes are between 0.001 and 0.1, and maps are channels-last.
    """
    rank = -(-dim // 16)
    normal = partial(torch.randn, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    x = normal(batch, size, size, dim).to(dtype).permute(0, 3, 1, 2)
    projected = normal(batch, size, size, 4, rank + 2 * state).to(dtype).permute(0, 3, 4, 1, 2)
    bias = torch.log(torch.expm1(torch.exp(torch.rand(4, dim, device="cuda") * 4.6 - 6.9)))
    A_log = torch.arange(1, state + 1, device="cuda").float().log().repeat(4, dim, 1)
    return [x, projected, normal(4, dim, rank) * rank**-0.5, bias, A_log, torch.ones(4, dim, device="cuda")]


def run(inputs: list[Tensor], grad: Tensor, *, backend: str) -> list[Tensor]:
    """Return the output and every gradient."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    x, projected, *parameters = leaves
    names = ("dt_weight", "dt_bias", "A_log", "D_skip")
    y = ss2d_scan(x, projected, **dict(zip(names, parameters, strict=True)), backend=backend)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad.to(y.dtype))]


def errors(
    *, dtype: torch.dtype, state: int, tf32: bool, size: tuple[int, int] = (23, 31)
) -> dict[str, float]:
    """Return relative errors against the float64 form, by name."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    inputs = make_inputs(72, 1, batch=2, dtype=dtype, state=state)
    generator = torch.Generator("cuda").manual_seed(1)
    for index, channels in ((0, (72,)), (1, (4, inputs[1].shape[2]))):
        drawn = torch.randn(2, *size, *channels, device="cuda", generator=generator).to(dtype)
        inputs[index] = drawn.movedim((1, 2), (-2, -1))
    grad = torch.randn(inputs[0].shape, device="cuda", generator=generator)
    result = run(inputs, grad, backend="triton")
    repeated = run(inputs, grad, backend="triton")
    assert all(torch.equal(a, b) for a, b in zip(result, repeated, strict=True)), "not deterministic"
    truth = run([tensor.double() for tensor in inputs], grad.double(), backend="chunked")
    return {
        name: ((ours.double() - true).norm() / true.norm()).item()
        for name, ours, true in zip(NAMES, result, truth, strict=True)
    }


def replayed(call: Callable[[], object]) -> float:
    """Return the median milliseconds of a CUDA graph's replay."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return do_bench(graph.replay, warmup=10, rep=40, return_mode="median")


def time_stage(stage: str, *, dtype: torch.dtype) -> dict[str, float]:
    """Time forward, and forward and backward, of one stage at batch 32."""
    torch.backends.cuda.matmul.allow_tf32 = True
    inputs = make_inputs(*STAGES[stage], batch=32, dtype=dtype)
    grad = torch.randn_like(inputs[0], dtype=torch.float32)
    x, projected, dt_weight, dt_bias, A_log, D_skip = inputs
    named = {"dt_weight": dt_weight, "dt_bias": dt_bias, "A_log": A_log, "D_skip": D_skip}
    forward = replayed(lambda: ss2d_scan(x, projected, **named, backend="triton"))
    both = replayed(lambda: run(inputs, grad, backend="triton"))
    return {"forward_ms": forward, "forward_backward_ms": both}


def timed(stage: str, *, dtype: torch.dtype) -> dict[str, object]:
    """Return and print the times of a stage, or the error of its kernels."""
    try:
        result: dict[str, object] = dict(time_stage(stage, dtype=dtype))
    except Exception as error:
        result = {"error": repr(error)[:300]}
    print(stage, dtype, result, flush=True)
    return result


def profile_stage(stage: str, *, dtype: torch.dtype) -> dict[str, float]:
    """Return the microseconds of each kernel."""
    inputs = make_inputs(*STAGES[stage], batch=32, dtype=dtype)
    grad = torch.randn_like(inputs[0], dtype=torch.float32)
    run(inputs, grad, backend="triton")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(5):
            run(inputs, grad, backend="triton")
        torch.cuda.synchronize()
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_device_time_total)
    return {event.key[:50]: round(event.self_device_time_total / 5, 1) for event in events[:12]}


def main() -> None:
    """Check, time and write a record."""
    record: dict[str, object] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    checks = {}
    for dtype, state, tf32 in itertools.product(
        (torch.float32, torch.bfloat16, torch.float16), (1, 3), (False, True)
    ):
        if dtype == torch.float32 or not tf32:
            name = f"{dtype} N={state} tf32={tf32}"
            checks[name] = errors(dtype=dtype, state=state, tf32=tf32)
            print(name, {key: f"{value:.1e}" for key, value in checks[name].items()}, flush=True)
    record["errors"] = checks
    rows: list[dict[str, object]] = []
    for kind in ("forward", "backward"):
        kept = getattr(triton_gpu, kind.upper())
        for tile in TILES[kind]:
            setattr(triton_gpu, kind.upper(), triton_gpu.Tile(*tile))
            if triton_gpu.FORWARD.tokens != triton_gpu.BACKWARD.tokens and kind == "backward":
                triton_gpu.FORWARD = triton_gpu.Tile(tile[0], 32)
            for stage in STAGES:
                row: dict[str, object] = {"kind": kind, "tile": tile, "stage": stage, "dtype": "float32"}
                if kind == "forward":
                    triton_gpu.BACKWARD = triton_gpu.Tile(tile[0], 16)
                rows.append(row | timed(stage, dtype=torch.float32))
        setattr(triton_gpu, kind.upper(), kept)
    triton_gpu.FORWARD, triton_gpu.BACKWARD = triton_gpu.Tile(32, 32), triton_gpu.Tile(32, 16)
    chosen = gluon_backend.walk_for
    for walk, stage in itertools.product(WALKS, STAGES):
        gluon_backend.walk_for = lambda _, walk=walk: walk
        gluon_backend.forget_launches()
        row = {"kind": "walk", **walk._asdict(), "stage": stage, "dtype": "bfloat16"}
        rows.append(row | timed(stage, dtype=torch.bfloat16))
    gluon_backend.walk_for = chosen
    gluon_backend.forget_launches()
    record["rows"] = rows
    record["kernels_us"] = {stage: profile_stage(stage, dtype=torch.bfloat16) for stage in STAGES}
    print(json.dumps(record["kernels_us"], indent=1))
    Path(sys.argv[1]).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
