"""Resources of compiled kernels, read from their machine code without a GPU."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True)
class Kernel:
    """A kernel compiled by ptxas.

    Attributes:
        file: The cubin.
        usage: REG, STACK, SHARED and LOCAL from cuobjdump, and the numbers that the compiling script recorded.
    """

    file: Path
    usage: dict[str, int]

    @cached_property
    def code(self):
        """The instructions. Reading them takes a third of a second."""
        text = _output_of("nvdisasm", "-c", "-ndf", self.file)
        return re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(.*?);", text, re.MULTILINE)


def compiled_kernels(script, folder):
    """Compile kernels in a process without Triton's interpreter, and read their resources.

    Args:
        script: Python code that writes `NAME.cubin` files into the folder in its first argument, and optionally
            `NAME.json` with further numbers.
        folder: An empty folder.

    Returns:
        The kernels by name.
    """
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True, env=environment, timeout=280)
    return {file.stem: Kernel(file, _usage(file)) for file in folder.glob("*.cubin")}


def _usage(file):
    found = re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", _output_of("cuobjdump", "-res-usage", file))
    notes = file.with_suffix(".json")
    return {key: int(value) for key, value in found} | (
        json.loads(notes.read_text()) if notes.exists() else {}
    )


def _output_of(tool, *arguments):
    import triton

    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / tool
    return subprocess.run([path, *arguments], check=True, capture_output=True, text=True).stdout
