"""Entries of the operators: SS2D core, mLSTM cell and loss.

The shapes are those of networks and trainings.
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.entries import DTYPES, Entry, PrecisionName, TimedCall, Workload
from benchmarks.gates import GateReport, check_operator
from benchmarks.loss_entry import loss_entry
from benchmarks.roofline import mlstm_work, ss2d_core_work
from scanseg.layers.ss2d import SS2D
from scanseg.ops._support.dispatch import Backend, choose
from scanseg.ops.mlstm import BACKENDS as MLSTM_BACKENDS
from scanseg.ops.mlstm import mlstm
from scanseg.ops.ss2d import BACKENDS as SS2D_BACKENDS
from scanseg.ops.ss2d import ss2d_scan

_SEED = 0
_REFERENCE_TOKENS = 1024
"""Longest sequence checked against the recurrence, which works token by token.

Longer sequences are checked against it up to here, and against the chunked form in full.
"""


class MapShape(NamedTuple):
    """Size of a map for SS2D."""

    batch: int
    dim: int
    height: int
    width: int


class CellShape(NamedTuple):
    """Size of the input of an mLSTM."""

    batch: int
    head: int
    token: int
    dim: int


SS2D_SHAPES: Mapping[str, MapShape] = {
    "S1": MapShape(32, 96, 56, 56),
    "S2": MapShape(32, 192, 28, 28),
    "S3": MapShape(32, 384, 14, 14),
    "S4": MapShape(32, 768, 7, 7),
}
"""The four stages of MSVM-UNet at a batch of 32 images of 224x224."""

MLSTM_SHAPES = (
    CellShape(2, 4, 6720, 128),
    CellShape(2, 4, 6656, 128),
    CellShape(12, 4, 4096, 128),
    CellShape(1, 4, 15360, 64),
    CellShape(13, 4, 15360, 64),
    CellShape(2, 4, 840, 160),
    CellShape(32, 4, 196, 96),
)
"""Batch, heads, tokens, features of a head: voxels as tokens in xLSTM-UNet Enc, and two short sequences.

Public kernels refuse 6720 tokens and accept 6656.
"""


def ss2d_core(layer: SS2D, x: Tensor) -> Tensor:
    """Project, scan, merge and normalise as in SS2D.

    The outer projections and the depthwise convolution of the layer are left out. A test compares this function with
    the layer.
    """
    weight = layer.x_proj_weight.flatten(0, 1)
    projected = (
        F.linear(x.movedim(1, -1), weight).movedim(-1, 1)
        if x.is_cuda
        else F.conv2d(x, weight[:, :, None, None])
    )
    y = ss2d_scan(
        x,
        projected.unflatten(1, layer.x_proj_weight.shape[:2]),
        dt_weight=layer.dt_weight,
        dt_bias=layer.dt_bias,
        A_log=layer.A_log,
        D_skip=layer.D_skip,
    )
    return layer.out_norm(y).to(x.dtype)


def operator_entries() -> tuple[Entry, ...]:
    """Return the entries of the operators."""
    maps = tuple(
        Entry(
            name=f"ss2d-core/{stage}/{precision}",
            precision=precision,
            device="cuda",
            build=partial(_build_core, shape, precision),
            check=partial(_check_scan, shape, precision),
            check_key=f"ss2d {shape} {precision}",
        )
        for precision in ("bfloat16", "tf32")
        for stage, shape in SS2D_SHAPES.items()
    )
    cells = tuple(
        _cell_entry(shape, precision, device="cuda")
        for precision in ("bfloat16", "tf32")
        for shape in MLSTM_SHAPES
    )
    scan_on_cpu = Entry(
        name="ss2d-scan/96x56x56/float32",
        precision="float32",
        device="cpu",
        build=partial(_build_scan, MapShape(1, 96, 56, 56), "float32"),
        check=partial(_check_scan, MapShape(1, 96, 56, 56), "float32"),
        check_key="ss2d on the CPU",
    )
    return (
        *maps,
        *cells,
        loss_entry(),
        scan_on_cpu,
        _cell_entry(CellShape(1, 4, 4096, 64), "float32", device="cpu"),
    )


def _cell_entry(shape: CellShape, precision: PrecisionName, *, device: str) -> Entry:
    return Entry(
        name=f"mlstm/{'x'.join(map(str, shape))}/{precision}",
        precision=precision,
        device="cpu" if device == "cpu" else "cuda",
        build=partial(_build_cell, shape, precision),
        check=partial(_check_cell, shape, precision),
        check_key=f"mlstm {shape} {precision}",
    )


def _backend_of(operator: str, backends: Mapping[str, Backend], inputs: Mapping[str, Tensor]) -> str:
    """Return the name of the default backend for these inputs."""
    chosen = choose(operator, backends, None, *inputs.values())
    return next(name for name, backend in backends.items() if backend is chosen)


def _tiny_map(shape: MapShape) -> MapShape:
    return MapShape(2, 16, min(shape.height, 6), min(shape.width, 5))


def _tiny_cell(shape: CellShape) -> CellShape:
    return CellShape(1, 2, min(shape.token, 40), 8)


def _memory_format(device: torch.device) -> torch.memory_format:
    """Return the memory format of the layer's convolution on a device."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def _layer(shape: MapShape, device: torch.device) -> SS2D:
    torch.manual_seed(_SEED)
    return SS2D(shape.dim).to(device)


def _build_core(shape: MapShape, precision: PrecisionName, device: torch.device, tiny: bool) -> Workload:  # noqa: FBT001
    shape, dtype = (_tiny_map(shape) if tiny else shape), DTYPES[precision]
    layer = _layer(shape, device)
    generator = torch.Generator(device).manual_seed(_SEED)
    memory = _memory_format(device)
    x = F.silu(torch.randn(shape, generator=generator, device=device)).to(dtype, memory_format=memory)
    x.requires_grad_()
    grad_output = torch.randn(shape, generator=generator, device=device).to(dtype, memory_format=memory)
    leaves = [x, layer.x_proj_weight, layer.dt_weight, layer.dt_bias, layer.A_log, layer.D_skip]
    leaves += [*layer.out_norm.parameters()]
    autocast = partial(torch.autocast, device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)

    def forward() -> Tensor:
        with torch.no_grad(), autocast():
            return ss2d_core(layer, x)

    def forward_and_backward() -> tuple[Tensor, ...]:
        with autocast():
            y = ss2d_core(layer, x)
        return torch.autograd.grad(y, leaves, grad_output)

    work = partial(
        ss2d_core_work,
        shape.batch,
        shape.dim,
        shape.height * shape.width,
        rank=layer.dt_weight.shape[2],
        state=1,
        itemsize=dtype.itemsize,
    )
    return Workload(
        calls={
            "forward": TimedCall(forward, work(backward=False), flush=True),
            "forward+backward": TimedCall(forward_and_backward, work(backward=True), flush=True),
        },
        settings={
            "shape": shape,
            "memory_format": str(memory),
            "backend": _backend_of("ss2d_scan", SS2D_BACKENDS, scan_inputs(shape, dtype, device)),
        },
    )


def scan_inputs(shape: MapShape, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Make the inputs of the scan within the core.

    Products have the dtype of x, and parameters are float32.
    """
    layer = _layer(shape, device)
    generator = torch.Generator(device).manual_seed(_SEED)
    x = F.silu(torch.randn(shape, generator=generator, device=device))
    projected = F.conv2d(x, layer.x_proj_weight.flatten(0, 1)[:, :, None, None]).detach()
    parameters = {name: getattr(layer, name).detach() for name in ("dt_weight", "dt_bias", "A_log", "D_skip")}
    projected = projected.unflatten(1, layer.x_proj_weight.shape[:2])
    return {
        "x": x.to(dtype, memory_format=_memory_format(device)),
        "projected": projected.to(dtype),
        **parameters,
    }


def _check_scan(shape: MapShape, precision: PrecisionName, device: torch.device, tiny: bool) -> GateReport:  # noqa: FBT001
    shape = (_tiny_map(shape) if tiny else shape)._replace(batch=2)
    inputs = scan_inputs(shape, DTYPES[precision], device)
    generator = torch.Generator(device).manual_seed(_SEED + 1)
    return check_operator(
        lambda tensors: ss2d_scan(**tensors),
        lambda tensors: ss2d_scan(**tensors, backend="reference"),
        inputs,
        grad_output=torch.randn(shape, generator=generator, device=device),
        tf32=precision == "tf32",
    )


def _build_scan(shape: MapShape, precision: PrecisionName, device: torch.device, tiny: bool) -> Workload:  # noqa: FBT001
    """Build the scan with the default and the chunked backend, for CPUs."""
    shape = _tiny_map(shape) if tiny else shape
    inputs = scan_inputs(shape, DTYPES[precision], device)

    def forward(backend: str | None) -> Tensor:
        with torch.no_grad():
            return ss2d_scan(**inputs, backend=backend)

    return Workload(
        calls={
            "forward": TimedCall(partial(forward, None)),
            "forward-chunked": TimedCall(partial(forward, "chunked")),
        },
        settings={"shape": shape, "backend": _backend_of("ss2d_scan", SS2D_BACKENDS, inputs)},
    )


def cell_inputs(shape: CellShape, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Draw q, k, v and gates as in a new layer.

    The mean of q and k is positive, because raw h is ill-conditioned if the row sum is near exp(-m).
    """
    generator = torch.Generator(device).manual_seed(_SEED)
    batch, head, token, dim = shape

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, device=device)

    q, k, v = (normal(batch, token, head, dim).transpose(1, 2) for _ in range(3))
    forget = torch.linspace(3, 6, head, device=device)[:, None] + 0.5 * normal(batch, head, token)
    return {
        "q": (q + 0.7).to(dtype),
        "k": (k + 0.7).to(dtype),
        "v": v.to(dtype),
        "igate": 0.5 * normal(batch, head, token),
        "fgate": forget,
    }


def _build_cell(shape: CellShape, precision: PrecisionName, device: torch.device, tiny: bool) -> Workload:  # noqa: FBT001
    shape, dtype = (_tiny_cell(shape) if tiny else shape), DTYPES[precision]
    inputs = {name: tensor.requires_grad_() for name, tensor in cell_inputs(shape, dtype, device).items()}
    generator = torch.Generator(device).manual_seed(_SEED + 1)
    grad_output = torch.randn(shape, generator=generator, device=device).to(dtype)

    def forward() -> Tensor:
        with torch.no_grad():
            return mlstm(**inputs)

    def forward_and_backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(mlstm(**inputs), list(inputs.values()), grad_output)

    work = partial(mlstm_work, shape, itemsize=dtype.itemsize)
    return Workload(
        calls={
            "forward": TimedCall(forward, work(backward=False), flush=True),
            "forward+backward": TimedCall(forward_and_backward, work(backward=True), flush=True),
        },
        settings={"shape": shape, "backend": _backend_of("mlstm", MLSTM_BACKENDS, inputs)},
    )


def _check_cell(shape: CellShape, precision: PrecisionName, device: torch.device, tiny: bool) -> GateReport:  # noqa: FBT001
    """Compare the cell with the recurrence and with the chunked form.

    The recurrence checks the first tokens, the chunked form all tokens. Both references are in float64.
    """
    shape = _tiny_cell(shape) if tiny else shape
    inputs = cell_inputs(shape, DTYPES[precision], device)
    generator = torch.Generator(device).manual_seed(_SEED + 1)
    grad_output = torch.randn(shape, generator=generator, device=device)
    errors: dict[str, float] = {}
    bounds: dict[str, float] = {}
    # The count is no multiple of a chunk, so the last chunk is partly masked.
    first = min(shape.token, _REFERENCE_TOKENS + 5)
    for name, token, batch in (
        ("reference", first, min(shape.batch, 2)),
        ("chunked", shape.token, shape.batch),
    ):
        report = check_operator(
            lambda tensors: mlstm(**tensors),
            lambda tensors, name=name: mlstm(**tensors, backend=name),  # type: ignore[misc]
            {key: tensor[:batch, :, :token] for key, tensor in inputs.items()},
            grad_output=grad_output[:batch, :, :token],
            tf32=precision == "tf32",
        )
        errors |= {f"{key} against {name}": value for key, value in report.errors.items()}
        bounds |= {f"{key} against {name}": value for key, value in report.bounds.items()}
    return GateReport(errors, bounds)
