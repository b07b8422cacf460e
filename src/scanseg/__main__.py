"""Entry point of `scanseg` and `python -m scanseg`."""

import os
import signal
import sys

from scanseg.cores import prepare_threads


def main() -> int:
    """Run the command line.

    OpenMP is prepared before PyTorch is imported. Ctrl-C during the imports and after the command ends the process
    without a traceback.

    Returns:
        The exit code.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    prepare_threads(os.environ)
    from scanseg import cli

    return cli.main()


if __name__ == "__main__":  # worker processes import this module too
    sys.exit(main())
