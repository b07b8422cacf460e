"""List of all commands with their arguments, for programs."""

import inspect
from collections.abc import Iterator
from typing import Any

from cyclopts import App


def describe_commands(app: App) -> dict[str, dict[str, Any]]:
    """Describe every command of an application.

    Args:
        app: The application.

    Returns:
        The words of each command, such as `data convert`, to its `summary` and its `arguments`. An argument has `names`
        (options begin with a dash), `help` and `required`.
    """
    return {words: _describe(command) for words, command in _commands(app)}


def _commands(app: App, words: str = "") -> Iterator[tuple[str, App]]:
    """Yield the commands with a function, and their words."""
    for name in app:
        if name.startswith("-"):
            continue
        command, full = app[name], f"{words} {name}".strip()
        if command.default_command is not None:
            yield full, command
        yield from _commands(command, full)


def _describe(command: App) -> dict[str, Any]:
    """Describe a command."""
    text = inspect.getdoc(command.default_command) or ""
    return {
        "summary": text.partition("\n")[0],
        "arguments": [
            {
                "names": list(argument.names),
                "help": " ".join((argument.parameter.help or "").split()),
                "required": bool(argument.required),
            }
            for argument in command.assemble_argument_collection(parse_docstring=True)
        ],
    }
