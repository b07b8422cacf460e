"""What kernels compiled for a GPU need, read from their machine code; no GPU is asked."""

import os
import re
import subprocess
import sys
from pathlib import Path


def compile_kernels(script, folder):
    """Compile kernels in a process without Triton's interpreter, and read what they need.

    Args:
        script: Python that writes `NAME.cubin` files into the folder that is its first argument.
        folder: An empty folder.

    Returns:
        By the kernels' names: REG, STACK, SHARED and LOCAL as cuobjdump says them, and `code`, their instructions.
    """
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True, env=environment, timeout=280)
    return {file.stem: _read(file) for file in folder.glob("*.cubin")}


def _read(file):
    usage = re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", _say("cuobjdump", "-res-usage", file))
    code = re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(.*?);", _say("nvdisasm", "-c", file), re.MULTILINE)
    return {**{key: int(value) for key, value in usage}, "code": code}


def _say(tool, *arguments):
    import triton

    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / tool
    return subprocess.run([path, *arguments], check=True, capture_output=True, text=True).stdout
