"""Entry point of `scanseg` and `python -m scanseg`."""

import signal
import sys


def main() -> int:
    """Run the command line.

    Ctrl-C during the imports and after the command ends the process without a traceback.

    Returns:
        The exit code.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from scanseg import cli

    return cli.main()


if __name__ == "__main__":  # worker processes import this module too
    sys.exit(main())
