"""Kernels in Gluon on the CPU: the functions of its language on whole tensors, in float64.

Gluon has no interpreter. Here layouts have no effect, every program runs alone, and inline assembly is executed for
tiles (warp, channel, token), of which each thread has `pack` tokens of a channel and lanes 0 to 3 share a channel.
"""

import importlib.util
import re
import sys
from types import ModuleType, SimpleNamespace

import torch

WIDE = torch.float64
APPROXIMATIONS = {
    "ex2.approx.ftz.f32": torch.exp2,
    "lg2.approx.ftz.f32": torch.log2,
    "rcp.approx.ftz.f32": torch.reciprocal,
}


class Written:
    """The elements of a tensor that programs have written.

    Threads see the stores of other threads after a barrier, and no stores of other programs.
    """

    def __init__(self, memory, grid):
        self.grid, self.by = grid, torch.full((memory.numel(), 2), -1)

    @property
    def now(self):
        """The number of the program, and of its barriers."""
        return torch.tensor([self.grid.number, self.grid.barriers])

    def add(self, chosen):
        by = self.by[chosen, 0]
        assert ((by == -1) | (by == self.grid.number)).all(), "two programs store to one address"
        self.by[chosen] = self.now

    def check(self, chosen):
        by, barriers = self.by[chosen].unbind(-1)
        assert ((by == -1) | (by == self.grid.number)).all(), "a load of what another program stores"
        assert ((by == -1) | (barriers < self.grid.barriers)).all(), "no barrier between store and load"


class Pointer:
    """Addresses in a contiguous tensor."""

    def __init__(self, memory, written, offsets=0):
        self.memory, self.written, self.offsets = memory, written, torch.as_tensor(offsets)
        self.dtype = SimpleNamespace(element_ty=memory.dtype)

    def __add__(self, offsets):
        return Pointer(self.memory, self.written, self.offsets + offsets)

    def selected(self, mask, *others):
        """Return the addresses where the mask is true, which must exist, with the mask and other tensors."""
        offsets, mask, *others = torch.broadcast_tensors(
            self.offsets, torch.as_tensor(True if mask is None else mask), *map(torch.as_tensor, others)
        )
        chosen = offsets[mask]
        assert ((chosen >= 0) & (chosen < self.memory.numel())).all(), "an address outside of the tensor"
        return chosen, mask, *others


class Memory:
    """Shared memory."""

    def __init__(self, values):
        self.values = values

    def store(self, values):
        self.values.copy_(values)

    def load(self, layout):
        return self.values.clone()

    def slice(self, start, length, dim=0):
        return Memory(self.values.narrow(dim, start, length))

    def index(self, index):
        return Memory(self.values[int(index)])


class AsyncCopies:
    """Copies into shared memory, which are only made when the program waits for them."""

    def __init__(self):
        self.started, self.committed = [], []

    def async_copy_global_to_shared(self, memory, pointers, mask=None):
        if pointers.memory.element_size() == 2:
            require_pairs(pointers, mask)
        chosen = load(pointers, mask)
        memory.values.fill_(torch.nan)
        self.started.append((memory, chosen))

    def commit_group(self):
        self.committed, self.started = [*self.committed, *self.started], []

    def wait_group(self, outstanding):
        assert outstanding == 0
        for memory, values in self.committed:
            memory.store(values)
        self.committed = []


class Ignored:
    """A layout."""

    def __init__(self, *arguments):
        pass


class Grid:
    """The numbers of the program, and of all programs."""

    def __init__(self):
        self.program, self.size = (0, 0, 0), (1, 1, 1)
        self.number = self.barriers = 0

    def start(self, number, program):
        """Go on to another program."""
        self.number, self.program = number, tuple(program)

    def wait(self):
        """Wait for the other threads of the program."""
        self.barriers += 1


def require_pairs(pointers, mask):
    """Check that elements of two bytes are copied in pairs. A copy has at least four bytes."""
    mask = torch.as_tensor(True if mask is None else mask).expand(pointers.offsets.shape)
    first, second = pointers.offsets[..., ::2], pointers.offsets[..., 1::2]
    assert torch.equal(second, first + 1), "a copy of less than four bytes"
    assert (first % 2 == 0).all(), "a copy from an address that is not aligned"
    assert torch.equal(mask[..., ::2], mask[..., 1::2]), "a copy of less than four bytes"
    assert pointers.memory.data_ptr() % 16 == 0, "a copy from an address that is not aligned"


def load(pointers, mask=None, other=0.0):
    chosen, mask, values = pointers.selected(mask, other)
    pointers.written.check(chosen)
    result = values.to(pointers.memory.dtype).clone()
    result[mask] = pointers.memory.view(-1)[chosen]
    return result


def store(pointers, values, mask=None):
    chosen, mask, values = pointers.selected(mask, values)
    pointers.written.add(chosen)
    pointers.memory.view(-1)[chosen] = values[mask].to(pointers.memory.dtype)


def atomic_add(pointer, value, **_):
    (address,), _ = pointer.selected(None)
    before = pointer.memory.view(-1)[address].item()
    pointer.memory.view(-1)[address] += value
    return before


def where(condition, first, second):
    condition, first, second = map(torch.as_tensor, (condition, first, second))
    if first.dim() == 0:
        return torch.where(condition, first.to(second.dtype), second)
    return torch.where(condition, first, second.to(first.dtype))


def exchanged(mode, values, distance):
    """Return the values of other lanes of four, and a mask of lanes that exist."""
    lane = torch.arange(4)
    source = {"up": lane - distance, "down": lane + distance, "idx": torch.full((4,), distance)}[mode]
    exists = (source >= 0) & (source < 4)
    return values[..., torch.where(exists, source, lane)], exists.expand(values.shape)


def run_assembly(code, arguments, results, pack):
    """Run assembly for each thread: registers are tensors over threads."""
    tiles = [tile.unflatten(-1, (4, pack)) for tile in torch.broadcast_tensors(*arguments)]
    registers = {
        f"${(results + i) * pack + t}": tile[..., t] for i, tile in enumerate(tiles) for t in range(pack)
    }
    for line in filter(None, map(str.strip, re.sub(r"[{}]|\.reg [^;]*;", "", code).split(";"))):
        is_guarded = line.startswith("@p ")
        operation, operands = line.removeprefix("@p ").split(maxsplit=1)
        target, *sources = (operand.strip() for operand in operands.split(","))
        values = [registers[name] if name in registers else float(int(name, 0)) for name in sources]
        if operation.startswith("shfl"):
            target, _, predicate = target.partition("|")
            value, exists = exchanged(operation.split(".")[2], values[0], int(values[1]))
            if predicate:
                registers[predicate] = exists
        else:
            value = {
                "mov.f32": lambda a: a,
                "mul.f32": lambda a, b: a * b,
                "add.f32": lambda a, b: a + b,
                "fma.rn.f32": lambda a, b, c: a * b + c,
            }[operation](*values)
        registers[target] = torch.where(registers["p"], value, registers[target]) if is_guarded else value
    outputs = [
        torch.stack([registers[f"${i * pack + t}"] for t in range(pack)], -1).flatten(-2)
        for i in range(results)
    ]
    return tuple(outputs) if results > 1 else outputs[0]


def inline_asm_elementwise(code, constraints, arguments, dtype, is_pure, pack):
    if pack == 1:
        return APPROXIMATIONS[code.split()[0]](arguments[0])
    return run_assembly(code, arguments, len(dtype) if isinstance(dtype, tuple) else 1, pack)


def language(grid):
    """Return a module with the functions of Gluon's language that the kernels use."""
    layouts = (
        "DistributedLinearLayout",
        "NVMMADistributedLayout",
        "SliceLayout",
        "DotOperandLayout",
        "SwizzledSharedLayout",
        "BlockedLayout",
    )
    functions = {
        "constexpr": lambda value: value,
        "static_range": range,
        "arange": lambda start, end, layout: torch.arange(start, end),
        "zeros": lambda shape, dtype, layout=None: torch.zeros(shape, dtype=dtype),
        "full_like": torch.full_like,
        "full": lambda shape, value, dtype, layout=None: torch.full(shape, value, dtype=dtype),
        "expand_dims": torch.unsqueeze,
        "convert_layout": lambda values, layout: values,
        "reshape": torch.reshape,
        "permute": torch.permute,
        "split": lambda values: (values[..., 0], values[..., 1]),
        "sum": torch.sum,
        "max": torch.amax,
        "maximum": lambda a, b: torch.maximum(torch.as_tensor(a, dtype=WIDE), torch.as_tensor(b, dtype=WIDE)),
        "minimum": lambda a, b: torch.minimum(torch.as_tensor(a, dtype=WIDE), torch.as_tensor(b, dtype=WIDE)),
        "exp": torch.exp,
        "thread_barrier": grid.wait,
        "program_id": lambda axis: torch.tensor(grid.program[axis]),
        "num_programs": lambda axis: grid.size[axis],
        "allocate_shared_memory": lambda dtype, shape, layout: Memory(
            torch.full(shape, torch.nan, dtype=dtype)
        ),
    }
    types = {
        "float32": WIDE,
        "bfloat16": WIDE,
        "int32": torch.int64,
        "uint32": torch.int64,
        "int64": torch.int64,
    }
    module = ModuleType("triton.experimental.gluon.language")
    own = (load, store, atomic_add, where, inline_asm_elementwise)
    vars(module).update(functions | types | dict.fromkeys(layouts, Ignored) | {f.__name__: f for f in own})
    return module


class EmulatedKernels:
    """Modules of kernels that run on tensors in float64.

    Args:
        names: Names of the modules. Those that a module imports come before it.
        monkeypatch: Replaces Gluon during the import.
    """

    def __init__(self, names, monkeypatch):
        self.grid, self.launched = Grid(), []
        gluon = ModuleType("triton.experimental.gluon")
        gluon.language = language(self.grid)
        gluon.constexpr_function = lambda function: function
        gluon.jit = lambda function=None, **_: function or (lambda kernel: kernel)
        instructions = ModuleType("triton.experimental.gluon.language.nvidia.ampere")
        instructions.async_copy = AsyncCopies()
        instructions.mma_v2 = lambda a, b, c: a.to(WIDE) @ b.to(WIDE) + c
        with monkeypatch.context() as patch:
            patch.setattr("triton.experimental.gluon", gluon)
            for module in (gluon, gluon.language, instructions):
                patch.setitem(sys.modules, module.__name__, module)
            for name in names:
                spec = importlib.util.find_spec(name)
                self.module = importlib.util.module_from_spec(spec)
                patch.setitem(sys.modules, name, self.module)
                spec.loader.exec_module(self.module)

    def launch(self, kernel, grid, *arguments, num_warps, maxnreg=None, **constants):
        """Run all programs of a kernel of the last module, one after the other."""
        self.grid.size = (*grid, 1, 1)[:3]
        self.launched.append(kernel)
        arguments = [
            Pointer(value, Written(value, self.grid)) if isinstance(value, torch.Tensor) else value
            for value in arguments
        ]
        programs = torch.cartesian_prod(*(torch.arange(size) for size in self.grid.size)).tolist()
        for number, program in enumerate(programs):
            self.grid.start(number, program)
            getattr(self.module, kernel)(*arguments, **constants)
