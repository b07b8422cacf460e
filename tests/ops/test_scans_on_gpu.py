"""The Triton kernels of both scans on a GPU, with the bounds of the contract tests at larger sizes."""

import pytest
import torch

from .precision import assert_accurate, cast
from .test_mlstm_cell import GATES, make_inputs, operator
from .test_scans import map_inputs, scan_map

pytestmark = pytest.mark.gpu
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
gates = pytest.mark.parametrize("gates", GATES)

SLACK_IN_16_BITS = 8.0
"""Factor on the bounds of the mLSTM's gradients.

Weighted scores become 16-bit operands of products, which the interpreter keeps wide. Measured on an H200: within the
bound for most inputs, 1.25 times the bound with saturated gates, 3.6 times for one token in bfloat16, 5.6 times with
saturated gates in float16.
"""


@pytest.fixture(autouse=True)
def exact_products():
    """Disable TF32 for products of float32."""
    matmul = torch.backends.cuda.matmul  # its attributes are not in its __dict__, as monkeypatch expects
    before = matmul.allow_tf32
    matmul.allow_tf32 = False
    yield
    matmul.allow_tf32 = before


def on_gpu(inputs, dtype):
    return {name: tensor.cuda() for name, tensor in cast(inputs, dtype).items()}


@dtypes
@gates
@pytest.mark.parametrize(
    ("size", "dim", "rank", "state"),
    [
        ((1, 1), 5, 2, 1),
        ((7, 7), 768, 48, 1),
        ((23, 31), 40, 6, 1),
        ((43, 41), 32, 2, 1),
        ((9, 5), 24, 3, 16),
    ],
)
def test_ss2d_scan(generator, dtype, gates, size, dim, rank, state):
    inputs = on_gpu(map_inputs(generator, gates, size=size, dim=dim, rank=rank, state=state), dtype)
    grad = torch.randn(inputs["x"].shape, generator=generator, dtype=torch.float64).cuda()
    assert_accurate(scan_map("triton"), scan_map("chunked"), inputs, grad)


@gates
@pytest.mark.parametrize(("size", "dim", "rank"), [((43, 41), 32, 2), ((23, 31), 40, 6), ((13, 11), 64, 24)])
def test_ss2d_scan_of_a_large_batch(generator, gates, size, dim, rank):
    inputs = on_gpu(map_inputs(generator, gates, batch=64, size=size, dim=dim, rank=rank), torch.bfloat16)
    grad = torch.randn(inputs["x"].shape, generator=generator, dtype=torch.float64).cuda()
    assert_accurate(scan_map("triton"), scan_map("chunked"), inputs, grad)


@dtypes
@gates
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize(
    ("token", "dim"),
    [(1, 6), (60, 256), (257, 32), (840, 160), (1031, 64), (1100, 20), (1100, 48), (1100, 96), (2300, 25)],
)
def test_mlstm(generator, dtype, gates, reverse, token, dim):
    inputs = on_gpu(make_inputs(generator, gates, token=token, dim=dim), dtype)
    grad = torch.randn(inputs["q"].shape, generator=generator, dtype=torch.float64).cuda()
    ours, reference = operator("triton", reverse=reverse), operator("chunked", reverse=reverse)
    slack = 1.0 if dtype == torch.float32 else SLACK_IN_16_BITS
    assert_accurate(ours, reference, inputs, grad, gradient_slack=slack)


def test_triton_is_the_default_and_compiles_as_one_graph(generator):
    inputs = on_gpu(map_inputs(generator, "random", size=(16, 16), dim=32), torch.float32)
    expected = scan_map("triton")(inputs)
    assert torch.equal(scan_map()(inputs), expected)
    compiled = torch.compile(scan_map(), fullgraph=True)
    torch.testing.assert_close(compiled(inputs), expected)
