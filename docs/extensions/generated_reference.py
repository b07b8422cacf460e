"""Parts of the reference that are made from the code, as Markdown.

`TEXTS` has them by the name that a page uses in `<!-- generated: NAME -->`.
"""

import importlib
import inspect
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin

from cyclopts import App
from docstring_parser import DocstringStyle
from docstring_parser import parse as parse_docstring
from plan_field_users import users_of

from scanseg.cli import build_app
from scanseg.errors import InterruptionError, ScansegError, UsageError
from scanseg.specs import Plan

API_PACKAGES = (
    "scanseg",
    "scanseg.networks",
    "scanseg.ops",
    "scanseg.imaging",
    "scanseg.evaluation",
    "scanseg.inference",
    "scanseg.planning",
    "scanseg.reports",
    "scanseg.serving",
    "scanseg.client",
)
"""Packages whose public names are in the reference of the Python API."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown. Bars and line breaks in cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


# Commands


def command_paths(app: App, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    """Yield every command with its words, those of a group after the group."""
    for name in app:
        if not name.startswith("-"):
            yield (*path, name), app[name]
            yield from command_paths(app[name], (*path, name))


def _choices(annotation: Any) -> list[str]:
    """Return the words of all literal types in an annotation."""
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    return [word for part in get_args(annotation) for word in _choices(part)]


def _positive(names: Sequence[str]) -> list[str]:
    """Leave out the negations that cyclopts adds to names and that the commands do not take."""
    negations = {
        f"--{word}-{name[2:]}" for name in names if name.startswith("--") for word in ("no", "empty")
    }
    return [name for name in names if name not in negations]


def _default(argument: Any) -> str:
    value = argument.field_info.default
    if argument.required:
        return "required"
    return "" if value in (None, False, (), "", inspect.Parameter.empty) else f"`{value}`"


def _arguments(command: App) -> str:
    parsed = parse_docstring(inspect.getdoc(command.default_command) or "", style=DocstringStyle.GOOGLE)
    described = {entry.arg_name: entry.description or "" for entry in parsed.params}
    rows = []
    for argument in command.assemble_argument_collection():
        names = _positive(argument.names)
        text = argument.parameter.help or described.get(argument.field_info.name, "")
        choices = _choices(argument.field_info.annotation)
        shown = f" Choices: {', '.join(f'`{word}`' for word in choices)}." if choices else ""
        rows.append((", ".join(f"`{name}`" for name in names), text + shown, _default(argument)))
    return table(("argument", "meaning", "default"), rows)


def commands() -> str:
    """Return a section for every command: its use, arguments and options."""
    parts = []
    for path, command in command_paths(build_app()):
        parts.append(f"{'#' * (1 + len(path))} scanseg {' '.join(path)}")
        parts.append(inspect.cleandoc(command.help).partition("\nArgs:")[0].strip())
        if command.default_command is not None:
            parts.append(_arguments(command))
    return "\n\n".join(part for part in parts if part)


# Fields of plans


def _resolve(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    return definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def _documents(schema: dict[str, Any]) -> list[str]:
    """Return the names of the documents that a field may hold."""
    found = [schema["$ref"].rpartition("/")[2]] if "$ref" in schema else []
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), schema.get("items")):
        found += _documents(part) if isinstance(part, dict) else []
    return found


def _sections(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield path, name and schema of every document in a plan, outer ones first."""
    definitions = schema["$defs"]
    waiting: list[tuple[str, str, dict[str, Any]]] = [("", "Plan", schema)]
    seen = set()
    while waiting:
        path, name, document = waiting.pop(0)
        yield path, name, document
        for field, content in document.get("properties", {}).items():
            place = f"{path}.{field}" if path else field
            place += ".0" if "items" in content else ""
            new = [inner for inner in _documents(content) if inner not in seen]
            seen.update(new)
            waiting += [(place, inner, definitions[inner]) for inner in new]


def _type_words(schema: dict[str, Any]) -> str:
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if "$ref" in schema:
        return f"[{schema['$ref'].rpartition('/')[2]}](#{schema['$ref'].rpartition('/')[2].lower()})"
    inner = [part for key in ("anyOf", "oneOf") for part in schema.get(key, ())]
    if inner:
        return " or ".join(_type_words(part) for part in inner)
    kind = str(schema.get("type", "value"))
    if kind == "array" and "prefixItems" in schema:
        return f"list of {len(schema['prefixItems'])} values"
    if kind == "array":
        return f"list of {_type_words(schema.get('items', {}))}"
    return kind + _bounds(schema)


def _bounds(schema: dict[str, Any]) -> str:
    signs = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    bounds = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return f" {', '.join(bounds)}" if bounds else ""


def _default_words(content: dict[str, Any], *, required: bool) -> str:
    if required:
        return "required"
    value = content.get("default")
    return "see its fields" if isinstance(value, dict) and value else f"`{json.dumps(value)}`"


def plan_fields() -> str:
    """Return a section for every document of a plan, with a table of its fields."""
    parts = []
    schema = Plan.model_json_schema()
    for path, name, document in _sections(schema):
        required = document.get("required", ())
        rows = [
            (
                f"`{path}.{field}`" if path else f"`{field}`",
                content.get("description")
                or _resolve(content, schema["$defs"]).get("description", "").split("\n\n")[0],
                _type_words(content),
                _default_words(content, required=field in required),
                users_of(name, field),
            )
            for field, content in document["properties"].items()
        ]
        parts += [f"## {name}", document.get("description", "").strip()]
        parts.append(table(("field", "meaning", "values", "default", "used by"), rows))
    return "\n\n".join(part for part in parts if part)


# Errors and exit codes


def error_classes(base: type[Exception] = ScansegError) -> Iterator[type[Exception]]:
    """Yield the error classes of users, the base class first."""
    for package in API_PACKAGES:
        importlib.import_module(package)
    yield base
    for child in base.__subclasses__():
        if child.__module__.startswith("scanseg."):
            yield from error_classes(child)


def exit_code_of(error: type[Exception]) -> str:
    """Return the exit code of a command that ends with an error of a class."""
    if issubclass(error, InterruptionError):
        return "128 + signal"
    return "2" if issubclass(error, UsageError) else "1"


def error_table() -> str:
    """Return a table of the error classes with their exit codes."""
    rows = [
        (
            f"`{error.__module__}.{error.__name__}`",
            f"`{error.__base__.__name__ if error.__base__ else ''}`",
            (inspect.getdoc(error) or "").partition("\nArgs:")[0],
            exit_code_of(error),
        )
        for error in error_classes()
    ]
    return table(("class", "extends", "meaning", "exit code of a command"), rows)


# Tables of the package


def metric_rules() -> str:
    """Return a table of the metric rules: scores of empty labels."""
    from scanseg.evaluation import METRIC_RULES

    def scores(agreement: Any) -> str:
        values = (agreement.dice, agreement.hd95, agreement.asd, agreement.nsd)
        return ", ".join("-" if v is None else "infinite" if math.isinf(v) else f"{v:g}" for v in values)

    rows = [
        (
            f"`{name}`",
            rule.description,
            scores(rule.both_empty),
            scores(rule.reference_empty),
            scores(rule.prediction_empty),
        )
        for name, rule in METRIC_RULES.items()
    ]
    return table(
        ("rule", "description", "both empty", "only the reference empty", "only the prediction empty"), rows
    )


def recipes() -> str:
    """Return a table of the recipes."""
    from scanseg.planning import RECIPES

    return table(("recipe", "plan"), [(f"`{name}`", recipe.description) for name, recipe in RECIPES.items()])


def networks() -> str:
    """Return a table of the networks."""
    from scanseg.networks import NETWORKS

    rows = [
        (
            f"`{name}`",
            entry.title,
            entry.summary,
            ", ".join(f"{axes}D" for axes in entry.num_axes),
            "yes" if entry.deep_supervision else "no",
            entry.source,
        )
        for name, entry in NETWORKS.items()
    ]
    return table(("network", "title", "description", "axes", "deep supervision", "source"), rows)


_OPERATOR_PACKAGES = {
    "ss2d_scan": "ss2d",
    "depthwise_conv": "depthwise",
    "normed_depthwise_conv": "normed_depthwise",
}
"""Packages of operators that have another name than their operator."""


def operators() -> str:
    """Return a section for every operator: its mathematics and backends."""
    from scanseg.ops import describe_backends

    backends: dict[str, list[str]] = {}
    for status in describe_backends():
        backends.setdefault(status.operator, []).append(f"`{status.backend}`")
    parts = []
    for name, names in backends.items():
        module = importlib.import_module(f"scanseg.ops.{_OPERATOR_PACKAGES.get(name, name)}")
        parts += [f"## {name}", inspect.getdoc(module) or "", f"Backends, in this order: {', '.join(names)}."]
    return "\n\n".join(parts)


def formats() -> str:
    """Return a table of the file formats by ending."""
    from scanseg.imaging import DECODERS, DETACHED_ENDINGS, LOSSY_ENDINGS

    rows = [
        (f"`{ending}`", decoder, "no" if ending in (*DETACHED_ENDINGS, *LOSSY_ENDINGS) else "yes")
        for ending, decoder in DECODERS.items()
    ]
    return table(("ending", "reader", "label maps are written"), rows)


# Python API


def api_names(package: str) -> list[str]:
    """Return the public functions and classes of a package."""
    module = importlib.import_module(package)
    return [name for name in module.__all__ if callable(getattr(module, name))]


def python_api() -> str:
    """Return a section for every package, with the docstrings of its public names."""
    parts = []
    for package in API_PACKAGES:
        module = importlib.import_module(package)
        parts.append(f"## {package}\n\n{inspect.getdoc(module)}\n")
        for name in api_names(package):
            kind = "autoclass" if inspect.isclass(getattr(module, name)) else "autofunction"
            parts.append(f"```{{eval-rst}}\n.. {kind}:: {package}.{name}\n```")
    parts.append("## scanseg.errors\n")
    parts += [
        f"```{{eval-rst}}\n.. autoclass:: scanseg.errors.{error.__name__}\n```"
        for error in error_classes()
        if error.__module__ == "scanseg.errors"
    ]
    return "\n\n".join(parts)


TEXTS: MappingProxyType[str, Callable[[], str]] = MappingProxyType(
    {
        "commands": commands,
        "plan-fields": plan_fields,
        "errors": error_table,
        "metric-rules": metric_rules,
        "recipes": recipes,
        "networks": networks,
        "operators": operators,
        "formats": formats,
        "python-api": python_api,
    }
)
