"""Floors, by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.roofline import (
    HARDWARE,
    Work,
    counted_floor_seconds,
    floor_seconds,
    mlstm_work,
    rates_of,
    ss2d_core_work,
)

OPERATIONS_COUNT = {
    "bytes": 1e30,
    "half_flops": 1.0,
    "tf32_flops": 1.0,
    "float32_flops": 1.0,
    "special_functions": 1.0,
}
BYTES_COUNT = {**dict.fromkeys(OPERATIONS_COUNT, 1e30), "bytes": 1.0}


def test_the_longest_part_counts_at_the_rate_of_the_type():
    rates = {"bytes": 10, "half_flops": 8, "tf32_flops": 4, "float32_flops": 2, "special_functions": 5}
    work = Work(num_bytes=20, flops=8, special=5)
    assert floor_seconds(work, dtype=torch.float32, tf32=False, rates=rates) == 4
    assert floor_seconds(work, dtype=torch.float32, tf32=True, rates=rates) == 2
    assert floor_seconds(work, dtype=torch.bfloat16, tf32=True, rates=rates) == 2
    assert floor_seconds(Work(0, 0, 50), dtype=torch.bfloat16, tf32=False, rates=rates) == 10


def test_the_floor_of_the_ss2d_core_at_s1():
    work = ss2d_core_work(32, 96, 3136, rank=6, state=1, itemsize=2, backward=True)
    assert work.num_bytes == 5 * 32 * 96 * 3136 * 2
    seconds = floor_seconds(work, dtype=torch.bfloat16, tf32=False, rates=HARDWARE["H100"])
    # operators.md, section 3: about 0.1 ms.
    assert 0.05e-3 < seconds < 0.12e-3


def test_the_work_of_the_cell_grows_linearly_once_that_is_cheaper():
    short, long, longer = (mlstm_work((1, 1, token, 8), itemsize=2, backward=False) for token in (4, 64, 128))
    assert short.flops == 2 * 4 * (4 * 8)
    assert longer.flops == 2 * long.flops


@pytest.mark.parametrize(
    ("call", "flops"),
    [
        (lambda: torch.ones(3, 4) @ torch.ones(4, 5), 2 * 3 * 4 * 5),
        (lambda: torch.ones(2, 3, 4) @ torch.ones(2, 4, 5), 2 * 2 * 3 * 4 * 5),
        (lambda: F.linear(torch.ones(3, 4), torch.ones(5, 4), torch.ones(5)), 2 * 3 * 4 * 5),
        (lambda: F.conv2d(torch.ones(1, 4, 6, 6), torch.ones(8, 4, 3, 3), padding=1), 2 * 8 * 36 * 4 * 9),
        (
            lambda: F.conv2d(torch.ones(1, 4, 6, 6), torch.ones(4, 1, 3, 3), padding=1, groups=4),
            2 * 4 * 36 * 9,
        ),
        (
            lambda: F.conv_transpose2d(torch.ones(1, 4, 3, 3), torch.ones(4, 8, 2, 2), stride=2),
            2 * 36 * 8 * 4,
        ),
        (lambda: torch.ones(5).exp(), 0),
    ],
)
def test_operations_are_counted(call, flops):
    assert counted_floor_seconds(call, tf32=False, rates=OPERATIONS_COUNT) == flops


def test_a_convolution_costs_thrice_in_a_step():
    layer = nn.Conv2d(4, 8, 3, padding=1, bias=False)
    image = torch.ones(2, 4, 6, 6, requires_grad=True)
    forward = 2 * 2 * 8 * 36 * 4 * 9
    seconds = counted_floor_seconds(lambda: layer(image).sum().backward(), tf32=False, rates=OPERATIONS_COUNT)
    assert seconds == 3 * forward


def test_bytes_of_a_product_are_its_operands_and_its_result():
    call = lambda: torch.ones(3, 4) @ torch.ones(4, 5)  # noqa: E731
    assert counted_floor_seconds(call, tf32=False, rates=BYTES_COUNT) == 4 * (12 + 20 + 15)


def test_an_own_operator_counts_by_its_bytes():
    @torch.library.custom_op("scanseg_benchmark_test::double", mutates_args=())
    def double(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    assert counted_floor_seconds(lambda: double(torch.ones(6)), tf32=False, rates=BYTES_COUNT) == 4 * 12


def test_rates_are_known_by_the_name_of_the_device():
    assert rates_of("NVIDIA H100 80GB HBM3") is HARDWARE["H100"]
    assert rates_of("AMD EPYC") is None
