import gc

import pytest
import torch

from scanseg.runtime.cuda_graph import GraphedCall, capture, run_before_capture

pytestmark = pytest.mark.gpu


def fail_to_capture(beside=None):
    with pytest.raises(RuntimeError, match="captur"), capture(torch.cuda.CUDAGraph(), beside=beside):
        torch.rand(1 << 22, device="cuda").sum().item()


def doubled(x, beside=None):
    graph = torch.cuda.CUDAGraph()
    with capture(graph, beside=beside):
        y = x * 2
    return graph, y


def test_a_graph_is_captured_and_replayed():
    x = torch.ones(4, device="cuda")
    graph, y = doubled(x)
    x.fill_(3)
    graph.replay()
    assert y.tolist() == [6] * 4


def test_after_a_failed_capture_numbers_are_drawn_and_graphs_captured():
    stream, x = torch.cuda.current_stream(), torch.ones(4, device="cuda")
    torch.manual_seed(5)
    expected = torch.rand(4, device="cuda")

    fail_to_capture()

    assert torch.cuda.current_stream() == stream
    torch.manual_seed(5)
    assert torch.equal(torch.rand(4, device="cuda"), expected)
    graph, y = doubled(x)
    graph.replay()
    assert y.tolist() == [2] * 4


def draw_and_raise():
    drawn = torch.rand(1 << 24, device="cuda")
    raise ValueError(f"no, not {drawn.shape}")


def end_with_an_error_of_python():
    with pytest.raises(ValueError, match="no"), capture(torch.cuda.CUDAGraph(), other_threads="left alone"):
        draw_and_raise()


@pytest.mark.parametrize("end_badly", [fail_to_capture, end_with_an_error_of_python])
def test_memory_of_captures_that_end_badly_is_given_back(end_badly):
    end_badly()
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()

    for _ in range(3):
        end_badly()

    gc.collect()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before
    assert torch.rand(4, device="cuda").isfinite().all()


def ask_for_too_much():
    torch.zeros(4, device="cuda")
    torch.empty(2 * torch.cuda.mem_get_info()[1], dtype=torch.uint8, device="cuda")


def test_no_memory_in_a_capture_leaves_memory_for_what_follows():
    with pytest.raises(torch.OutOfMemoryError), capture(torch.cuda.CUDAGraph()):
        ask_for_too_much()
    gc.collect()
    torch.cuda.empty_cache()
    assert torch.rand(1 << 24, device="cuda").isfinite().all()


def test_a_capture_that_fails_beside_a_graph_leaves_that_one():
    x = torch.ones(4, device="cuda")
    graph, y = doubled(x)
    beside, z = doubled(y, beside=graph)
    fail_to_capture(beside=graph)
    apart, u = doubled(z)
    x.fill_(5)
    for each in (graph, beside, apart):
        each.replay()
    assert u.tolist() == [40] * 4


def test_a_call_copies_its_inputs_and_replays():
    def run(x, y):
        return x * 2 + y

    x, y = torch.ones(4, device="cuda"), torch.ones(4, device="cuda")
    run_before_capture(lambda: run(x, y))
    call = GraphedCall(run, (x, y))
    x.fill_(100)  # the call has its own copies
    assert call(torch.full_like(x, 3), y).tolist() == [7] * 4
    assert call(torch.full_like(x, 4), None).tolist() == [8] * 4
