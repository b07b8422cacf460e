"""Environment of the kernels that run the tutorials, and the execution of one tutorial."""

import os
import re
import shutil
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]
STARTUP = DOCS / "extensions" / "notebook_startup.py"
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(?P<options>(?::[\w-]+:.*\n)*)(?P<code>.*?)^```$", re.M | re.S)


def kernel_environment(folder: Path) -> dict[str, str]:
    """Return the variables of a kernel: this source tree and environment, one thread, tables of 100 columns.

    Args:
        folder: Folder for the files of IPython.
    """
    startup = folder / "profile_default" / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    shutil.copy(STARTUP, startup / "00-commands.py")
    paths = [str(DOCS.parent / "src"), os.environ.get("PYTHONPATH", "")]
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "IPYTHONDIR": str(folder),
        "COLUMNS": "100",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "PYTHONUTF8": "1",
    }


def cells_of(text: str) -> list[str]:
    """Return the code of the cells of a tutorial."""
    return [match["code"] for match in CELL.finditer(text)]


def execute(page: Path, *, folder: Path, timeout: float = 900) -> list[str]:
    """Run the cells of a tutorial and return their printed output.

    Args:
        page: The tutorial.
        folder: New folder in which it runs.
        timeout: Longest time of one cell in seconds.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell or a command failed.
    """
    import nbformat
    from nbclient import NotebookClient

    folder.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(code) for code in cells_of(page.read_text(encoding="utf-8"))]
    )
    client = NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    environment = {**os.environ, **kernel_environment(folder / ".ipython")}
    with client.setup_kernel(env=environment):
        for number, cell in enumerate(notebook.cells):
            client.execute_cell(cell, number)
    return [
        output.get("text", "") or output.get("data", {}).get("text/plain", "")
        for cell in notebook.cells
        for output in cell.outputs
    ]


if __name__ == "__main__":
    import tempfile
    import time

    for name in sys.argv[1:]:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as place:
            print("\n".join(execute(Path(name), folder=Path(place) / "run")))
        print(f"{name}: {time.monotonic() - start:.0f} s")
