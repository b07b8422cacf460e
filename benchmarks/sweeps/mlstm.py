"""Sweep of the layouts of the mLSTM's Triton kernels.

Usage: python benchmarks/sweeps/mlstm.py RESULT.json [HEAD_SIZE ...]

It measures accuracy first, then times. Several processes compile the candidates before they are timed one after
another. Head sizes (such as 128) select the shapes.
"""

import itertools
import json
import multiprocessing
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from triton.testing import do_bench

from scanseg.ops.mlstm import mlstm
from scanseg.ops.mlstm import triton_backend as triton_gpu
from scanseg.ops.mlstm import triton_launch as gpu_launch
from scanseg.ops.mlstm import triton_layout as gpu_layout
from scanseg.ops.mlstm import triton_tile_launch as gpu_tile_launch

NAMES = ("output", "q", "k", "v", "igate", "fgate")
STEPS = {
    "gates": ("sum_gates", "scan_frames"),
    "updates": ("state_updates", "tile_updates"),
    "scans": ("scan_states", "scan_state_gradients", "tile_decays", "tile_states", "tile_state_gradients"),
    "outputs": ("outputs",),
    "upstream": ("upstream_gradients", "tile_upstream"),
    "queries": ("query_gradients",),
    "keys": ("key_gradients",),
    "gradients": ("tile_gradients",),
    "gate grads": ("sum_around_blocks", "gate_gradients", "tile_gate_gradients"),
}
Shape = tuple[int, int, int, int]
Candidate = Mapping[str, int]
"""Changed fields of the layout (`chunk`: tokens of a chunk), `num_warps`, `num_stages` and `maxnreg`.

`tiled`: 0 for the kernels that read features in parts.
"""

TILED: list[Candidate] = [
    {},
    {"chunk": 64},
    {"num_warps": 4},
    {"num_warps": 8},
    {"maxnreg": 168},
    {"tiled": 0, "chunk": 128},
]
WIDE: list[Candidate] = [*TILED, {"tiled": 0, "chunk": 256}]
NARROW: list[Candidate] = [*TILED, {"chunk": 256}]
SHORT: list[Candidate] = [{}, {"num_stages": 1}, {"num_warps": 8}, {"block": 32}]
TIMED: dict[Shape, list[Candidate]] = {
    (2, 4, 6720, 128): WIDE,
    (12, 4, 4096, 128): WIDE,
    (1, 4, 15360, 64): NARROW,
    (13, 4, 15360, 64): NARROW,
    (2, 4, 840, 160): [*SHORT, {"chunk": 256}],
    (32, 4, 196, 96): [*SHORT, {"num_warps": 4}],
    (2, 2, 320, 210): [{}, {"block": 32}],
    (13, 4, 60, 256): [{}, {"block": 32}],
    (12, 4, 512, 32): [{}, {"block": 32}, {"num_warps": 8}],
}

lay_out_as_shipped, options_as_shipped = gpu_layout.lay_out, gpu_layout.launch_options
tile_options_as_shipped = gpu_layout.tile_options


def use(candidate: Candidate) -> None:
    """Make the kernels use a candidate."""

    def lay_out(token: int, dim: int, dtype: torch.dtype) -> gpu_layout.Layout:
        layout = lay_out_as_shipped(token, dim, dtype)
        block = candidate.get("block", layout.block)
        cols = candidate.get("cols", layout.cols)
        tiled = bool(candidate.get("tiled", layout.tiled))
        layout = layout._replace(block=block, cols=cols, parts=-(-dim // cols), tiled=tiled)
        chunk = candidate.get("chunk", layout.padded)
        if layout.num_chunks == 1 and "chunk" not in candidate:
            return layout._replace(blocks=-(-token // block))
        return layout._replace(num_chunks=-(-token // chunk), padded=chunk, blocks=chunk // block)

    def launch_options(step: gpu_layout.Step, layout: gpu_layout.Layout) -> dict[str, int]:
        options = options_as_shipped(step, layout)
        return {name: candidate.get(name, value) for name, value in options.items()}

    def tile_options(step: gpu_layout.TileStep, layout: gpu_layout.Layout) -> dict[str, int]:
        options = tile_options_as_shipped(step, layout) | {"maxnreg": None}
        return {name: candidate.get(name, value) for name, value in options.items()}

    triton_gpu.lay_out, gpu_launch.launch_options = lay_out, launch_options
    gpu_tile_launch.tile_options = tile_options


def make_inputs(shape: Shape, dtype: torch.dtype) -> list[Tensor]:
    """Draw inputs as in the ViL block.

    Heads are side by side in memory, and forget gates are near one.
    """
    batch, head, token, dim = shape
    normal = partial(torch.randn, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    q, k, v = (normal(batch, token, head, dim).transpose(1, 2).to(dtype) for _ in range(3))
    igate, fgate = normal(batch, token, 2 * head).transpose(1, 2).chunk(2, dim=1)
    return [q + 0.5, k + 0.5, v, igate, fgate + 4]


def run(inputs: list[Tensor], grad: Tensor, *, backend: str, reverse: bool = False) -> list[Tensor]:
    """Return the output and every gradient."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    h = mlstm(*leaves, reverse=reverse, backend=backend)
    return [h.detach(), *torch.autograd.grad(h, leaves, grad)]


def errors(shape: Shape, *, dtype: torch.dtype, tf32: bool, reverse: bool = False) -> dict[str, float]:
    """Return relative errors against the chunked form in float64, by name.

    Repeated runs must agree bit for bit.
    """
    torch.backends.cuda.matmul.allow_tf32 = tf32
    inputs = make_inputs(shape, dtype)
    grad = torch.randn_like(inputs[0])
    result = run(inputs, grad, backend="triton", reverse=reverse)
    repeated = run(inputs, grad, backend="triton", reverse=reverse)
    assert all(torch.equal(a, b) for a, b in zip(result, repeated, strict=True)), "not deterministic"
    truth = run([tensor.double() for tensor in inputs], grad.double(), backend="chunked", reverse=reverse)
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


def profiled(call: Callable[[], object]) -> dict[str, float]:
    """Return microseconds of each step, forward and backward together."""
    call()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(5):
            call()
        torch.cuda.synchronize()
    times = dict.fromkeys([*STEPS, "other"], 0.0)
    for event in profiler.key_averages():
        step = next((step for step, kernels in STEPS.items() if event.key in kernels), "other")
        times[step] += event.self_device_time_total / 5
    return {step: round(time, 1) for step, time in times.items()}


def measure(shape: Shape, candidate: Candidate) -> dict[str, object]:
    """Return the times of a candidate in bfloat16, or its failure."""
    use(candidate)
    row: dict[str, object] = {"shape": shape, "candidate": candidate}
    try:
        inputs = make_inputs(shape, torch.bfloat16)
        grad = torch.randn_like(inputs[0])
        both = partial(run, inputs, grad, backend="triton")
        row["forward_ms"] = replayed(lambda: mlstm(*inputs, backend="triton"))
        row["forward_backward_ms"] = replayed(both)
        row["eager_forward_backward_ms"] = do_bench(both, warmup=10, rep=40, return_mode="median")
        row["microseconds"] = profiled(both)
    except Exception as error:  # A failed candidate is reported, and the sweep continues.
        row["failed"] = f"{type(error).__name__}: {error}"[-300:]
    return row


def compile_candidate(task: tuple[Shape, Candidate]) -> None:
    """Compile the kernels on one image of the shape.

    `measure` reports failures.
    """
    (_, head, token, dim), candidate = task
    use(candidate)
    inputs = make_inputs((1, head, token, dim), torch.bfloat16)
    try:
        run(inputs, torch.randn_like(inputs[0]), backend="triton")
    except Exception as error:
        print("compiling", task, f"{type(error).__name__}: {error}"[-200:], flush=True)


def describe(row: Mapping[str, object]) -> str:
    """Format one line of the table."""
    name = " ".join(f"{key}={value}" for key, value in row["candidate"].items()) or "shipped"
    if "failed" in row:
        return f"{row['shape']!s:22} {name:36} {row['failed']}"
    steps = " ".join(f"{step} {time:.0f}" for step, time in row["microseconds"].items() if time)
    forward, both, eager = (
        row[f"{kind}_ms"] for kind in ("forward", "forward_backward", "eager_forward_backward")
    )
    return f"{row['shape']!s:22} {name:36} {forward:7.3f} {both:7.3f} (eager {eager:.3f}) | {steps}"


def main() -> None:
    """Check, time and write a record."""
    record: dict[str, object] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    wanted = [int(word) for word in sys.argv[2:]]
    timed = {shape: candidates for shape, candidates in TIMED.items() if not wanted or shape[3] in wanted}
    tasks = [(shape, candidate) for shape, candidates in timed.items() for candidate in candidates]
    with multiprocessing.get_context("spawn").Pool(14) as pool:
        # Compiled kernels depend on the head size, not on the tokens.
        unique = {(shape[3], str(candidate)): (shape, candidate) for shape, candidate in tasks}
        compiled = pool.map_async(compile_candidate, unique.values(), chunksize=1)
        checks = {}
        settings = (
            (torch.float32, False),
            (torch.float32, True),
            (torch.bfloat16, True),
            (torch.float16, True),
        )
        shapes = ((1, 2, 1500, 64), (1, 2, 1500, 128), (2, 2, 531, 160), (2, 2, 61, 25))
        for (dtype, tf32), shape in itertools.product(settings, shapes):
            name = f"{dtype} tf32={tf32} {shape}"
            try:
                checks[name] = errors(shape, dtype=dtype, tf32=tf32, reverse=shape[3] == 128)
                print(name, {key: f"{value:.1e}" for key, value in checks[name].items()}, flush=True)
            except Exception as error:  # As in `measure`.
                print(name, f"FAILED {type(error).__name__}: {error}"[-300:], flush=True)
        compiled.wait(240)
    record["errors"] = checks
    torch.backends.cuda.matmul.allow_tf32 = True
    print("shape, candidate, forward and forward + backward in ms (graph), microseconds of the steps")
    rows = []
    for shape, candidate in tasks:
        rows.append(measure(shape, candidate))
        print(describe(rows[-1]), flush=True)
    record["rows"] = rows
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
