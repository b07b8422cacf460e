"""CUDA graphs in tests without a GPU: a mode records PyTorch's operators on the CPU and runs them again."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map


class Recorder(TorchDispatchMode):
    """Records every operator with its arguments and results."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, operator, types, arguments=(), options=None):
        """Run an operator and record it."""
        results = operator(*arguments, **(options or {}))
        self.calls.append((operator, arguments, options or {}, results))
        return results


class RecordedCall:
    """Has the interface of `scanseg.runtime.GraphedCall`. A replay writes into the recorded tensors."""

    captures = 0

    def __init__(self, run, inputs, *, beside=None, other_threads="refused"):
        RecordedCall.captures += 1
        self.graph = object()
        self.inputs = tuple(tensor.detach().clone() for tensor in inputs)
        dtype, enabled = torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu")
        with torch.autocast("cpu", dtype=dtype, enabled=enabled, cache_enabled=False), Recorder() as recorder:
            self.result = run(*self.inputs)
        self._calls = recorder.calls

    @torch.no_grad()
    def __call__(self, *inputs):
        """Run the recorded operators with new inputs."""
        for own, given in zip(self.inputs, inputs, strict=True):
            own.zero_() if given is None else own.copy_(given)
        for operator, arguments, options, results in self._calls:
            arguments, options = tree_map(detached, (arguments, options))
            with torch.autocast("cpu", enabled=False):  # its casts are among the recorded operators
                again = operator(*arguments, **options)
            for old, new in zip(tree_leaves(results), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.detach().copy_(new)
        return self.result


def detached(value):
    """Return a tensor without its history, in the same memory."""
    return value.detach() if isinstance(value, torch.Tensor) else value
