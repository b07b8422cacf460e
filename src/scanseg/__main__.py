"""The process of the command: `scanseg`, or `python -m scanseg`."""

import signal
import sys


def main() -> int:
    """Run the command; Ctrl-C before its first line and after its last ends the process without a traceback.

    Returns:
        The exit code.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from scanseg import cli

    return cli.main()


if __name__ == "__main__":  # worker processes import this module too
    sys.exit(main())
