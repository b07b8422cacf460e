"""Count the launches of MSVM-UNet on a simulated GPU, on which Triton kernels do nothing.

This is a separate program, because it replaces functions of the package. Tensors are on the CPU. It prints the numbers
of launches of forward pass, backward pass and inference as JSON. Views and allocations launch nothing.
"""

import json
import sys
from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.jit import JITFunction

from scanseg.layers import pass_parameters, vss_block
from scanseg.networks import MSVMUNet
from scanseg.ops._support import branch, dispatch, launching, launching_variants, linear, pass_weights
from scanseg.ops._support import triton as triton_support

WITHOUT_LAUNCH = {
    *(
        "view",
        "t",
        "permute",
        "transpose",
        "as_strided",
        "expand",
        "select",
        "slice",
        "split",
        "split_with_sizes",
    ),
    *("unsqueeze", "detach", "alias", "_unsafe_view", "unbind", "squeeze", "promote_types", "_reshape_alias"),
    *("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"),
}

launched: Counter[str] = Counter()


class Compiled:
    """A compiled kernel that counts its launches."""

    function, packed_metadata = None, None

    def __init__(self, name):
        self.name = name

    def run(self, *arguments):
        launched[self.name] += 1


def first_launch(kernel, grid):
    def launch(*arguments, **constants):
        launched[kernel.__name__] += 1
        return Compiled(kernel.__name__)

    return launch


def weight_gradient(grad, rows, weight):
    """Compute the product in one launch, as on a GPU."""
    return torch.mm(grad.t(), rows).new_empty(weight.shape, dtype=weight.dtype)


class Counted(TorchDispatchMode):
    """Counts the operators that launch a kernel."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.partition("::")[2]
        if name not in WITHOUT_LAUNCH:
            launched[name] += 1
        return func(*args, **(kwargs or {}))


def imagine_gpu():
    """Replace what distinguishes a CPU from a GPU."""
    pass_weights._is_correct = lambda table, device: True  # nothing is computed
    JITFunction.__getitem__ = first_launch
    torch._C._cuda_getDevice = lambda: 0
    torch._C._cuda_getCurrentRawStream = lambda device: 0
    launching.USABLE = pass_weights.INTERPRETED = True
    launching_variants.KNOWN_VERSIONS = ((0, 0), (99, 0))
    triton_support._is_current = vss_block.is_one_operator = pass_parameters.is_one_operator = lambda tensor: (
        True
    )
    dispatch.check_kernels_by(lambda operator, first: True, lambda operator, first: True)
    for module in (triton_support, branch):
        module.refuses.__code__ = (lambda *tensors: None).__code__
    for name, module in list(sys.modules.items()):
        if name.startswith("scanseg") and hasattr(module, "is_traced"):
            module.is_traced = lambda *tensors: False
        if name.startswith("scanseg") and module is not linear and hasattr(module, "weight_gradient"):
            module.weight_gradient = weight_gradient


def counted(run):
    """Return the launches of a function, with its result."""
    launched.clear()
    with Counted():
        result = run()
    return dict(launched), result


def main():
    """Print the launches of three passes."""
    imagine_gpu()
    network = MSVMUNet(3, 9, dims=(16, 24, 32, 48))
    images = torch.zeros(2, 3, 96, 96)

    def forward():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return network(images)

    def backward(logits):
        with torch.autograd.set_multithreading_enabled(mode=False):
            logits.backward(torch.ones_like(logits))

    for _ in range(2):
        backward(forward())
    network.zero_grad(set_to_none=True)
    found = {}
    found["forward"], logits = counted(forward)
    found["backward"], _ = counted(lambda: backward(logits))
    network.eval()
    with torch.no_grad():
        forward()
        found["inference"], _ = counted(forward)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
