"""Time and memory of the operators by the number of tokens.

Usage: python -m benchmarks.growth --device cuda -o benchmarks/results/NAME.json
       python -m benchmarks.growth --draw benchmarks/results/NAME.json -o docs/pictures/linear-growth.png

Each backend is measured beside the published quadratic form: forward and backward of one image, `mlstm` with 4 heads
of 64 features, `ss2d_scan` with 96 channels, bfloat16 on GPUs. Each backend is checked against float64 at the first
size. A series ends at the limit of memory or of time.
"""

import argparse
import gc
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.gates import check_operator
from benchmarks.growth_figure import save_figure
from benchmarks.machine import describe_run
from benchmarks.measuring import measure
from benchmarks.operator_entries import CellShape, MapShape, cell_inputs, scan_inputs
from scanseg.ops._support.dispatch import Backend
from scanseg.ops.mlstm import BACKENDS as MLSTM_BACKENDS
from scanseg.ops.mlstm import mlstm
from scanseg.ops.ss2d import BACKENDS as SS2D_BACKENDS
from scanseg.ops.ss2d import ss2d_scan
from scanseg.runtime.device import choose_device

Inputs = Mapping[str, Tensor]
Operator = Callable[[Inputs], Tensor]

MAP_SIZES = {
    tokens: (2 ** (bits // 2), 2 ** (bits - bits // 2)) for bits in range(10, 18) for tokens in [2**bits]
}
"""Height and width of maps of 1k, 2k ... 128k pixels, by the number of pixels."""


def published_mlstm(inputs: Inputs) -> Tensor:
    """Compute the mLSTM by the quadratic formula of its publication.

    It compares every token with every earlier token.

    Source: Beck et al. 2024, arXiv:2405.04517, eq. 19-27, and appendix A.3.
    """
    q, k, v, igate, fgate = (inputs[name].float() for name in ("q", "k", "v", "igate", "fgate"))
    token, dim = q.shape[2:]
    total = F.logsigmoid(fgate).cumsum(-1)
    read = torch.ones(token, token, dtype=torch.bool, device=q.device).tril()
    D = total[..., :, None] - total[..., None, :] + igate[..., None, :]
    D = D.masked_fill(~read, -math.inf)
    m = D.amax(-1, keepdim=True)
    weights = (q @ k.mT / math.sqrt(dim)) * torch.exp(D - m)
    return weights @ v / (torch.maximum(weights.sum(-1, keepdim=True).abs(), torch.exp(-m)) + 1e-6)


def measure_growth(
    device: torch.device, *, token_counts: Sequence[int], seconds: float, max_call_seconds: float
) -> Iterator[dict[str, object]]:
    """Measure every series and yield its rows.

    A row is one operator, backend and number of tokens.

    Args:
        device: Device of the calls.
        token_counts: Powers of two from 1024 to 131072, rising.
        seconds: Time for the timed calls of a row.
        max_call_seconds: A series ends after a longer call.
    """
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    for operator, name, run, make_inputs in _series(device, dtype):
        reference = _REFERENCES[operator]
        first = make_inputs(token_counts[0])
        report = check_operator(
            run,
            reference,
            first,
            grad_output=torch.randn_like(next(iter(first.values())).float()),
            tf32=False,
        )
        base = {"operator": operator, "backend": name, "check": asdict(report)}
        if not report.passed:
            yield {**base, "status": "check failed"}
            continue
        for tokens in token_counts:
            row = {**base, "tokens": tokens, **_measured(run, make_inputs(tokens), device, seconds=seconds)}
            yield row
            gc.collect()
            if row["status"] != "measured" or row["median_ms"] > 1e3 * max_call_seconds:
                break


def _series(
    device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[str, str, Operator, Callable[[int], dict[str, Tensor]]]]:
    """Yield operator, backend, function and inputs of every series.

    The inputs are a function of the number of tokens.
    """
    fewest = min(MAP_SIZES)

    def cells(tokens: int) -> dict[str, Tensor]:
        return cell_inputs(CellShape(1, 4, tokens, 64), dtype, device)

    def maps(tokens: int) -> dict[str, Tensor]:
        return scan_inputs(MapShape(1, 96, *MAP_SIZES[tokens]), dtype, device)

    for name in _available(MLSTM_BACKENDS, cells(fewest)):
        yield "mlstm", name, partial(_run_mlstm, name), cells
    yield "mlstm", "published quadratic form", published_mlstm, cells
    for name in _available(SS2D_BACKENDS, maps(fewest)):
        yield "ss2d", name, partial(_run_ss2d, name), maps


def _available(backends: Mapping[str, Backend], inputs: Inputs) -> Iterator[str]:
    """Yield the backends for these inputs, except the recurrence in Python."""
    for name, backend in backends.items():
        refusal = backend.unavailable or backend.refuses(*inputs.values())
        if name != "reference" and not backend.by_name_only and refusal is None:
            yield name


def _run_mlstm(backend: str, inputs: Inputs) -> Tensor:
    return mlstm(**inputs, backend=backend)


def _run_ss2d(backend: str, inputs: Inputs) -> Tensor:
    return ss2d_scan(**inputs, backend=backend)


_REFERENCES: dict[str, Operator] = {
    "mlstm": partial(_run_mlstm, "reference"),
    "ss2d": partial(_run_ss2d, "reference"),
}


def _measured(
    run: Operator, inputs: dict[str, Tensor], device: torch.device, *, seconds: float
) -> dict[str, object]:
    leaves = {name: tensor.requires_grad_() for name, tensor in inputs.items()}

    def forward_and_backward() -> tuple[Tensor, ...]:
        output = run(leaves)
        return torch.autograd.grad(output, list(leaves.values()), torch.ones_like(output))

    try:
        return {
            "status": "measured",
            **asdict(measure(forward_and_backward, device, seconds=seconds, flush=False)),
        }
    except torch.OutOfMemoryError:
        return {"status": "out of memory"}
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


def main(words: Sequence[str] | None = None) -> int:
    """Measure and write a record, or draw one."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", "-o", type=Path, required=True)
    parser.add_argument("--draw", type=Path, help="draw this record instead of measuring")
    parser.add_argument("--max-tokens", type=int, default=131072)
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--max-call-seconds", type=float, default=3.0)
    parser.add_argument("--threads", type=int, help="number of CPU threads")
    parser.add_argument("--commit", help="commit of the code, if git is missing")
    arguments = parser.parse_args(words)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    if arguments.draw is not None:
        save_figure(json.loads(arguments.draw.read_text(encoding="utf-8")), arguments.output)
        return 0
    device = choose_device(arguments.device)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    record = {**describe_run(device, commit=arguments.commit), "rows": []}
    rows = measure_growth(
        device,
        token_counts=[tokens for tokens in MAP_SIZES if tokens <= arguments.max_tokens],
        seconds=arguments.seconds,
        max_call_seconds=arguments.max_call_seconds,
    )
    for row in rows:
        record["rows"].append(row)
        arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        shown = {name: value for name, value in row.items() if name not in ("check", "p20_ms", "p80_ms")}
        print(shown, flush=True)
    return 0 if all(row["status"] != "check failed" for row in record["rows"]) else 1


if __name__ == "__main__":
    sys.exit(main())
