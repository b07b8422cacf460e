"""Start of the kernel that runs the tutorials: commands print their results, and a failure ends the tutorial.

IPython runs this file first. Progress and notes of commands (stderr) are not shown.
"""

import os
import subprocess
import sys

from IPython import get_ipython

shell = get_ipython()


def run_command(command: str) -> None:
    """Run a line that begins with `!`.

    Args:
        command: The line without the exclamation mark. `{name}` stands for a variable.

    Raises:
        RuntimeError: The exit code is not 0.
    """
    line = shell.var_expand(command, depth=1)
    environment = {name: value for name, value in os.environ.items() if "FORCE_COLOR" not in name}
    ended = subprocess.run(
        line, shell=True, capture_output=True, text=True, check=False, env={**environment, "NO_COLOR": "1"}
    )
    sys.stdout.write(ended.stdout)
    if ended.returncode != 0:
        raise RuntimeError(f"{line}: exit code {ended.returncode}\n{ended.stderr}")


shell.system = run_command
