"""The command `scanseg`.

A command is a module here: it turns arguments into one call of `scanseg.api`, shows progress on stderr and the
result on stdout. What is heavy (torch, numpy, pydantic, the rooms) is imported in the function that runs.
"""

import os
import sys
from collections.abc import Callable, Sequence

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from scanseg.cli import compare as study
from scanseg.cli import data
from scanseg.cli.check import check
from scanseg.cli.crossval import crossval
from scanseg.cli.demo import demo
from scanseg.cli.evaluate import evaluate
from scanseg.cli.info import info
from scanseg.cli.interrupts import Interrupt, raise_on_signals
from scanseg.cli.plan import plan
from scanseg.cli.predict import predict
from scanseg.cli.preprocess import preprocess
from scanseg.cli.reproduce import reproduce
from scanseg.cli.train import train
from scanseg.cli.weights import import_checkpoint, verify
from scanseg.errors import OtherProcessError, ScansegError, UsageError
from scanseg.version import __version__

__all__ = ["main"]

_COMMANDS: tuple[Callable[..., object], ...] = (
    check,
    plan,
    preprocess,
    train,
    crossval,
    predict,
    evaluate,
    info,
    demo,
    reproduce,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Words after `scanseg`; None: those of the process.

    Returns:
        The exit code: 0 done, 1 failed, 2 used wrongly, 128 plus the signal where one ended it.
    """
    try:
        with raise_on_signals():
            code = _build()(arguments, print_error=False, exit_on_error=False, result_action="return_value")
        sys.stdout.flush()
    except UnusedCliTokensError as error:
        words = " ".join(error.unused_tokens or ())
        return _report(
            f"not understood: {words}. An option takes one value (--set path.to.key=value), and is named again for "
            f"each other (--recipe A --recipe B)",
            code=2,
        )
    except (CycloptsError, UsageError) as error:
        return _report(str(error), code=2)
    except OtherProcessError:
        return 1
    except ScansegError as error:
        return _report(str(error), code=1)
    except Interrupt as interrupt:
        return _report(str(interrupt), code=interrupt.exit_code)
    except BrokenPipeError:
        _close_stdout()
        return 1
    except FileExistsError as error:
        return _report(
            f"{error.filename} is a file, where a folder is to be made; name another place", code=1
        )
    except OSError as error:
        if error.strerror is None:
            raise
        return _report(": ".join(str(part) for part in (error.filename, error.strerror) if part), code=1)
    except (MemoryError, RuntimeError) as error:
        return _report_memory(error)
    return code or 0


def _build() -> App:
    app = App(
        name="scanseg",
        help="Train and use segmentation networks that read an image as a sequence (MSVM-UNet, xLSTM-UNet).",
        version=__version__,
        help_format="markdown",
        suppress_keyboard_interrupt=False,
        default_parameter=Parameter(negative=(), show_default=_show_default),
    )
    for number, command in enumerate(_COMMANDS):
        app.command(command, sort_key=number)
    weights = App(name="weights", help="Weights of the published networks.", sort_key=len(_COMMANDS))
    weights.command(verify)
    weights.command(import_checkpoint, name="import")
    app.command(weights)
    named = App(name="data", help="Data sets that have names, and objects.", sort_key=len(_COMMANDS))
    named.command(data.list_datasets, name="list", sort_key=0)
    named.command(data.convert, sort_key=1)
    named.command(data.instances, sort_key=2)
    app.command(named)
    studies = App(
        name="study",
        usage="Usage: scanseg study --output PATH [OPTIONS] STUDY [DATASET]\n       scanseg study COMMAND",
        sort_key=len(_COMMANDS),
    )
    studies.default(study.run)
    studies.command(study.list_comparisons, name="list", sort_key=0)
    studies.command(study.show, sort_key=1)
    app.command(studies)
    return app


def _show_default(value: object) -> object:
    """Leave out of the help what a reader takes for granted."""
    return None if value is False or value in ((), "") else value


def _close_stdout() -> None:
    """Let what is still to be written to a reader that went away (`scanseg info | head`) vanish."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def _report_memory(error: Exception) -> int:
    """Say that memory did not suffice where nothing has said it better; raise what is another error."""
    from scanseg.runtime import lacks_memory

    if not lacks_memory(error):
        raise error
    reason = str(error).strip().partition("\n")[0]
    return _report(
        f"the memory does not suffice{f' ({reason})' if reason else ''}; end what else uses it, or choose another "
        f"device (--device)",
        code=1,
    )


def _report(message: str, *, code: int) -> int:
    """Say on stderr what went wrong."""
    sys.stderr.write(f"error: {message}\n")
    return code
