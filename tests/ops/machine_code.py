"""What kernels compiled for a GPU need, read from their machine code; no GPU is asked."""

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
    """A kernel as ptxas made it.

    Attributes:
        file: Its cubin.
        usage: REG, STACK, SHARED and LOCAL as cuobjdump says them; and what the script that compiled it noted.
    """

    file: Path
    usage: dict[str, int]

    @cached_property
    def code(self):
        """Its instructions; reading them takes a third of a second."""
        text = _say("nvdisasm", "-c", "-ndf", self.file)
        return re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(.*?);", text, re.MULTILINE)


def compile_kernels(script, folder):
    """Compile kernels in a process without Triton's interpreter, and read what they need.

    Args:
        script: Python that writes `NAME.cubin` files into the folder that is its first argument, and beside them
            `NAME.json` if there are numbers to note.
        folder: An empty folder.

    Returns:
        The `Kernel`s by their names.
    """
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True, env=environment, timeout=280)
    return {file.stem: Kernel(file, _usage(file)) for file in folder.glob("*.cubin")}


def _usage(file):
    found = re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", _say("cuobjdump", "-res-usage", file))
    notes = file.with_suffix(".json")
    return {key: int(value) for key, value in found} | (
        json.loads(notes.read_text()) if notes.exists() else {}
    )


def _say(tool, *arguments):
    import triton

    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / tool
    return subprocess.run([path, *arguments], check=True, capture_output=True, text=True).stdout
