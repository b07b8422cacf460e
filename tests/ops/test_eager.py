"""The short path around custom operators, and launches of kernels without Triton's binding of arguments."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scanseg.ops import instance_norm
from scanseg.ops._support import launching, launching_variants
from scanseg.ops._support.eager import is_traced

pytest.importorskip("triton")


class Dispatched(TorchDispatchMode):
    """Records the names of dispatched operators."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def norm(x, weight, bias):
    y = instance_norm(x, weight, bias, negative_slope=0.1, backend="triton")
    return (y, *torch.autograd.grad(y.square().sum(), (x, weight, bias)))


@pytest.fixture
def inputs(generator):
    shapes = ((2, 3, 4, 4), (3,), (3,))
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def test_a_call_reaches_the_custom_operator_only_under_a_mode(inputs, monkeypatch):
    calls = []
    original = torch._library.custom_ops.CustomOpDef.__call__

    def count(self, *arguments, **options):
        calls.append(self._qualname)
        return original(self, *arguments, **options)

    monkeypatch.setattr(torch._library.custom_ops.CustomOpDef, "__call__", count)
    direct = norm(*inputs)
    assert calls == []
    with Dispatched() as mode:
        dispatched = norm(*inputs)
    assert set(calls) == {"scanseg::instance_norm", "scanseg::instance_norm_backward"}
    assert {"scanseg.instance_norm.default", "scanseg.instance_norm_backward.default"} <= set(mode.names)
    for found, expected in zip(direct, dispatched, strict=True):
        assert torch.equal(found, expected)


def test_modes_transforms_and_tensor_types_trace_a_call():
    class Special(torch.Tensor):
        """A tensor with a type of its own."""

    x = torch.ones(2)
    assert not is_traced(x, torch.nn.Parameter(x), None, 3)
    assert is_traced(x.as_subclass(Special))
    with Dispatched():
        assert is_traced(x)
    seen = []
    torch.func.grad(lambda value: (seen.append(is_traced(x)), value.sum())[1])(x)
    assert seen == [True]


def test_without_gradients_nothing_is_kept(inputs):
    with torch.no_grad():
        assert instance_norm(*inputs, backend="triton").grad_fn is None
    x, weight, bias = (tensor.detach() for tensor in inputs)
    assert instance_norm(x, weight, bias, backend="triton").grad_fn is None


class Compiled:
    """The interface of a compiled kernel, which records its launches."""

    def __init__(self, name):
        self.function, self.packed_metadata = f"function of {name}", f"metadata of {name}"
        self.launches = []

    def run(self, *arguments):
        self.launches.append(arguments)


class Kernel:
    """The interface of a function under `triton.jit`, with a number of the bindings by Triton itself."""

    arg_names = ("x", "count", "eps", "SIZE")

    def __init__(self):
        self.bound = []

    def __getitem__(self, grid):
        def launch(*arguments, **constants):
            self.bound.append((grid, arguments, constants))
            return Compiled(len(self.bound))

        return launch


@pytest.fixture
def kernel(monkeypatch):
    monkeypatch.setattr(torch._C, "_cuda_getDevice", lambda: 0, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda device: 77, raising=False)
    monkeypatch.setattr(launching, "USABLE", True)
    monkeypatch.setattr(launching_variants, "_variants", {})
    monkeypatch.setattr(launching_variants, "KNOWN_VERSIONS", ((0, 0), (99, 0)))
    return Kernel()


def launch(kernel, x, count=5, eps=1e-5, size=16, grid=(3, 2)):
    launching.launch(kernel, grid)(x, count, eps, SIZE=size, num_warps=4)


def test_the_second_launch_runs_the_compiled_kernel(kernel):
    x = torch.zeros(64)
    launch(kernel, x)
    (variant,) = launching_variants._variants.values()
    launch(kernel, x, eps=0.5)
    assert len(kernel.bound) == 1
    compiled = variant.run.__self__
    arguments = (x.data_ptr(), 5, 0.5, 16)
    assert compiled.launches == [
        (3, 2, 1, 77, "function of 1", "metadata of 1", None, None, None, *arguments)
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"x": torch.zeros(64, dtype=torch.float64)},
        {"x": torch.zeros(65)[1:]},
        {"count": 1},
        {"count": 16},
        {"size": 32},
    ],
    ids=["dtype", "alignment", "one", "divisible", "constant"],
)
def test_all_that_triton_compiles_into_a_kernel_selects_a_variant(kernel, change):
    x = torch.zeros(64)
    launch(kernel, x)
    launch(kernel, **{"x": x} | change)
    assert len(kernel.bound) == 2
    launch(kernel, x)
    assert len(kernel.bound) == 2


def test_hooks_of_profilers_see_every_launch(kernel, monkeypatch):
    import triton

    x = torch.zeros(64)
    launch(kernel, x)
    monkeypatch.setattr(triton.knobs.runtime.launch_enter_hook, "calls", [print])
    launch(kernel, x)
    assert len(kernel.bound) == 2


def test_unknown_versions_of_triton_bind_arguments_themselves(kernel, monkeypatch):
    monkeypatch.setattr(launching_variants, "KNOWN_VERSIONS", ((0, 0), (0, 1)))
    for _ in range(2):
        launch(kernel, torch.zeros(64))
    assert len(kernel.bound) == 2


def test_a_planned_launch_reads_addresses_only(kernel):
    plan = launching.Launch(kernel, (3, 2), (5, 1e-5), SIZE=16, num_warps=4)
    x, y = torch.zeros(64), torch.ones(64)
    plan(x)
    (variant,) = launching_variants._variants.values()
    plan(y)
    assert len(kernel.bound) == 1
    arguments = (y.data_ptr(), 5, 1e-5, 16)
    assert variant.run.__self__.launches == [
        (3, 2, 1, 77, "function of 1", "metadata of 1", None, None, None, *arguments)
    ]


def test_a_planned_launch_of_unaligned_tensors_is_another_variant(kernel):
    plan = launching.Launch(kernel, (3, 2), (5, 1e-5), SIZE=16, num_warps=4)
    for x in (torch.zeros(65)[1:], torch.zeros(64), torch.zeros(65)[1:], torch.zeros(64)):
        plan(x)
    assert len(kernel.bound) == 2


def test_hooks_of_profilers_see_planned_launches(kernel, monkeypatch):
    import triton

    plan = launching.Launch(kernel, (3, 2), (5, 1e-5), SIZE=16, num_warps=4)
    plan(torch.zeros(64))
    monkeypatch.setattr(triton.knobs.runtime.launch_enter_hook, "calls", [print])
    plan(torch.zeros(64))
    assert len(kernel.bound) == 2


def test_a_planned_launch_on_another_gpu_is_bound_again(kernel, monkeypatch):
    plan = launching.Launch(kernel, (3, 2), (5, 1e-5), SIZE=16, num_warps=4)
    plan(torch.zeros(64))
    monkeypatch.setattr(torch._C, "_cuda_getDevice", lambda: 1, raising=False)
    plan(torch.zeros(64))
    assert len(kernel.bound) == 2


def test_the_number_of_variants_is_bounded(kernel, monkeypatch):
    monkeypatch.setattr(launching_variants, "MOST_VARIANTS", 3)
    x = torch.zeros(64)
    for count in range(10):
        launch(kernel, x, count=count)
    assert len(launching_variants._variants) <= 3


class Launcher:
    """The interface of the launcher of Triton 3.6."""

    launch_cooperative_grid, launch_pdl = False, True
    profile_scratch_size = 0

    def __init__(self, global_scratch_size):
        self.global_scratch_size = global_scratch_size

    def launch(self, *arguments):
        """Launch a kernel without scratch memory."""


def test_kernels_without_scratch_memory_skip_the_outer_launcher():
    plain, scratching = Launcher(0), Launcher(64)
    assert launching_variants._launcher(plain, (3, 6)) == (plain.launch, (False, True, None, None))
    assert launching_variants._launcher(scratching, (3, 6)) == (scratching, ())
    assert launching_variants._launcher(plain, (3, 9)) == (plain, ())
