"""The command `scanseg`.

Each command is a module here. It turns arguments into one call of `scanseg.api`, shows progress on stderr, and prints
the result on stdout. Heavy imports (torch, numpy, pydantic, other packages) are inside the functions, so that `--help`
is fast.
"""

import os
import sys
from collections.abc import Callable, Sequence

from cyclopts import App, CycloptsError, Group, Parameter, UnusedCliTokensError

from scanseg.cli import compare, data, dicom, models
from scanseg.cli.calibrate import calibrate
from scanseg.cli.check import check
from scanseg.cli.crossval import crossval
from scanseg.cli.demo import demo
from scanseg.cli.evaluate import evaluate
from scanseg.cli.export import export_app
from scanseg.cli.import_model import import_app
from scanseg.cli.info import info_command
from scanseg.cli.interrupts import Interrupt, raise_on_signals
from scanseg.cli.plan import plan
from scanseg.cli.predict import predict
from scanseg.cli.preprocess import preprocess
from scanseg.cli.report import report
from scanseg.cli.reproduce import reproduce
from scanseg.cli.serve import serve
from scanseg.cli.show import show
from scanseg.cli.train import train
from scanseg.cli.view import view
from scanseg.cli.warm_up import warm_up
from scanseg.cli.weights import import_checkpoint, verify
from scanseg.errors import OtherProcessError, ScansegError, UsageError
from scanseg.version import __version__

__all__ = ["main"]

_Failure = CycloptsError | ScansegError | OSError | MemoryError | RuntimeError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Words after `scanseg`. `None`: the arguments of the process.

    Returns:
        The exit code: 0 for success, 1 for a failure, 2 for wrong usage, 128 plus the number of the signal after an
        interrupt.
    """
    try:
        with raise_on_signals():
            code = build_app()(
                arguments, print_error=False, exit_on_error=False, result_action="return_value"
            )
        sys.stdout.flush()
    except Interrupt as interrupt:
        return _report(str(interrupt), code=interrupt.exit_code)
    except BrokenPipeError:
        _close_stdout()
        return 1
    except (CycloptsError, ScansegError, OSError, MemoryError, RuntimeError) as error:
        return _report_failure(error)
    return code or 0


def build_app() -> App:
    """Build the application with all commands."""
    app = App(
        name="scanseg",
        help="Segment medical images with networks that read an image as a sequence (MSVM-UNet, xLSTM-UNet).",
        version=__version__,
        help_format="markdown",
        suppress_keyboard_interrupt=False,
        default_parameter=Parameter(negative=(), show_default=_show_default),
    )
    app["--help"].group = app["--version"].group = Group("Options", sort_key=1)
    app["--version"].help = "Display the version and exit."
    commands: tuple[App | Callable[..., object], ...] = (
        *(check, plan, preprocess, train, crossval, calibrate, predict, evaluate, report, show, view, serve),
        *(
            _compare_app(),
            reproduce,
            _data_app(),
            _dicom_app(),
            _models_app(),
            models.card,
            _weights_app(),
            import_app(),
            export_app(),
            demo,
            warm_up,
            info_command(app),
        ),
    )
    usages: dict[Callable[..., object], str] = {
        predict: "Usage: scanseg predict --output PATH [OPTIONS] MODEL INPUT...",
        view: "Usage: scanseg view [OPTIONS] IMAGE [LABEL_MAP...]",
        serve: "Usage: scanseg serve [OPTIONS] MODEL...",
        show: "Usage: scanseg show --output PATH [OPTIONS] IMAGE [LABEL_MAP]",
        reproduce: "Usage: scanseg reproduce --data STR --output PATH [OPTIONS] PAPER [SOURCE]",
    }
    for number, command in enumerate(commands):
        if isinstance(command, App):
            command.sort_key = number
            app.command(command)
        else:
            app.command(command, sort_key=number, usage=usages.get(command))
    return app


def _compare_app() -> App:
    app = App(
        name="compare",
        usage="Usage: scanseg compare --output PATH [OPTIONS] COMPARISON [DATASET]\n"
        "       scanseg compare list\n"
        "       scanseg compare show COMPARISON",
    )
    app.default(compare.run)
    app.command(compare.list_comparisons, name="list", sort_key=0)
    app.command(compare.show, sort_key=1)
    return app


def _data_app() -> App:
    app = App(name="data", help="Convert your own folders and public data sets, and make instance maps.")
    app.command(data.list_datasets, name="list", sort_key=0)
    usage = "Usage: scanseg data convert --output PATH [OPTIONS] NAME SOURCE [LABELS]"
    app.command(data.convert, sort_key=1, usage=usage)
    app.command(data.instances, sort_key=2)
    return app


def _models_app() -> App:
    app = App(name="models", help="List the models that predict by name, and share your own.")
    app.default(models.list_models)
    app.command(models.save, sort_key=1, usage="Usage: scanseg models save --output PATH [OPTIONS] MODEL")
    app.command(models.fetch, sort_key=2)
    return app


def _dicom_app() -> App:
    app = App(name="dicom", help="List the series of DICOM folders and zip files.")
    app.command(dicom.list_series, name="list", sort_key=0)
    return app


def _weights_app() -> App:
    app = App(name="weights", help="Import and verify weights of the published networks.")
    app.command(import_checkpoint, name="import", sort_key=0)
    app.command(verify, sort_key=1, usage="Usage: scanseg weights verify [OPTIONS] RECORD...")
    return app


def _show_default(value: object) -> object:
    """Return a default for the help, or `None` to hide it."""
    return None if value is False or value in ((), "") else value


def _close_stdout() -> None:
    """Discard output for a reader that has closed (`scanseg info | head`)."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())


def _report_failure(error: _Failure) -> int:
    """Print an expected error and return its exit code.

    Any other error is raised again.
    """
    match error:
        case UnusedCliTokensError():
            words = " ".join(error.unused_tokens or ())
            message = (
                f"unexpected argument: {words}. Give one value per option (--set path.to.key=value), and repeat the "
                f"option for more (--recipe A --recipe B)."
            )
            return _report(message, code=2)
        case CycloptsError() | UsageError():
            return _report(str(error), code=2)
        case OtherProcessError():
            return 1
        case ScansegError():
            return _report(str(error), code=1)
        case FileExistsError():
            message = f"{error.filename}: expected a folder, got a file. Choose another path."
            return _report(message, code=1)
        case OSError() if error.strerror is not None:
            parts = (error.filename, error.strerror)
            return _report(": ".join(str(part) for part in parts if part), code=1)
        case MemoryError() | RuntimeError():
            return _report_memory(error)
    raise error


def _report_memory(error: Exception) -> int:
    """Print that memory ran out.

    An error of another cause is raised again.
    """
    from scanseg.runtime import lacks_memory

    if not lacks_memory(error):
        raise error
    reason = str(error).strip().partition("\n")[0]
    return _report(
        f"not enough memory{f' ({reason})' if reason else ''}. Close other programs that use it, or choose another "
        f"device (--device).",
        code=1,
    )


def _report(message: str, *, code: int) -> int:
    """Print an error on stderr and return the exit code."""
    sys.stderr.write(f"error: {message}\n")
    return code
