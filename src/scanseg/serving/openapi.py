"""The OpenAPI document of a server, and its page without scripts."""

from collections.abc import Sequence
from html import escape
from typing import Any

from scanseg.serving.limits import Limits
from scanseg.version import __version__

_FILE = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_JSON = {"application/json": {"schema": {"type": "object"}}}
_STATES = ["waiting", "running", "done", "failed", "cancelled"]
_JOB_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "model": {"type": "string"},
        "state": {"type": "string", "enum": _STATES},
        "progress": {
            "type": ["object", "null"],
            "properties": {
                "task": {"type": "string"},
                "done": {"type": "integer"},
                "total": {"type": "integer"},
            },
        },
        "error": {"type": ["string", "null"]},
        "warnings": {"type": "array", "items": {"type": "string"}},
        "seconds": {"type": ["number", "null"]},
        "results": {"type": "array", "items": {"type": "string"}},
    },
}
_JOB = {"application/json": {"schema": {"$ref": "#/components/schemas/Job"}}}


def make_document(models: Sequence[str], limits: Limits) -> dict[str, Any]:
    """Return the OpenAPI document.

    Args:
        models: Names of the models.
        limits: Limits to state.
    """
    upload = {"description": f"At most {limits.upload_bytes} bytes.", "required": True, "content": _uploads()}
    new_job = _operation(
        "Segment an image",
        "Put an image into the queue. The image is the body, or a form with one file for each channel. Names of files "
        "are not used.",
        {
            "202": ("The job, in the queue.", _JOB),
            "400": ("A malformed request.", _JSON),
            "408": (f"The upload took longer than {limits.upload_seconds:g} s.", _JSON),
            "413": ("The upload is too large.", _JSON),
            "415": ("The format is unknown.", _JSON),
            "503": (f"All {limits.queue_size} places are taken. See the header Retry-After.", _JSON),
        },
        [
            _query(
                "model", {"type": "string", "enum": list(models)}, "Required if there are several models."
            ),
            _query(
                "mirror",
                {"type": "boolean"},
                "Average over flips. Defaults to the choice of the plan of the model.",
            ),
            _query("uncertainty", {"type": "boolean"}, "Make the uncertainty maps too."),
        ],
    )
    wait = _query("wait", {"type": "number", "maximum": 30}, "Longest time in seconds to wait for a change.")
    form = _query("format", {"type": "string"}, "Ending: nii.gz, nii, nrrd, mha or png.")
    paths: dict[str, Any] = {
        "/health": {
            "get": _operation("Show the state of the server", "", {"200": ("It accepts jobs.", _JSON)})
        },
        "/models": {
            "get": _operation("List the models", "", {"200": ("Channels and labels of each model.", _JSON)})
        },
        "/jobs": {"post": new_job | {"requestBody": upload}},
        "/jobs/{job}": {
            "get": _operation("Show a job", "", {"200": ("State and progress.", _JOB)}, [wait], is_job=True),
            "delete": _operation(
                "Cancel a job",
                "Its files are removed. A running job ends at its next window.",
                {"204": ("It is cancelled.", None)},
                is_job=True,
            ),
        },
        "/jobs/{job}/volumes": {
            "get": _result("Get the volumes of the labels", "Voxels, and ml or mm2.", _JSON)
        },
        "/jobs/{job}/label-map": {
            "get": _result("Get the label map", "On the grid of the image.", _FILE, [form])
        },
        "/jobs/{job}/dicom-seg": {
            "get": _result("Get the DICOM Segmentation", "Only for uploads of DICOM series.", _FILE)
        },
        "/jobs/{job}/entropy": {
            "get": _result("Get the entropy map", "From 0 to 1. Only with uncertainty=true.", _FILE)
        },
        "/jobs/{job}/disagreement": {
            "get": _result(
                "Get the disagreement map",
                "From 0 to 1. Only with uncertainty=true, and several networks or flips.",
                _FILE,
            )
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "scanseg",
            "version": __version__,
            "description": f"Segmentation of medical images. Results are removed {limits.kept_seconds:g} s after the "
            "end of a job. Nothing here is a medical device.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Job": _JOB_SCHEMA},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def render_page(document: dict[str, Any]) -> str:
    """Return an OpenAPI document as a page.

    Args:
        document: The document.
    """
    sections = [
        _render(path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    info = document["info"]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>scanseg server</title></head><body><main>'
        f"<h1>scanseg {escape(info['version'])}</h1><p>{escape(info['description'])}</p>"
        '<p>For programs: <a href="/openapi.json">openapi.json</a></p>'
        f"{''.join(sections)}</main></body></html>"
    )


def _render(path: str, method: str, operation: dict[str, Any]) -> str:
    """Return an operation as a section of a page."""
    rows = [
        (parameter["name"], parameter.get("description", "")) for parameter in operation.get("parameters", ())
    ]
    answers = [(status, answer["description"]) for status, answer in operation["responses"].items()]
    return (
        f"<section><h2><code>{escape(method.upper())} {escape(path)}</code></h2>"
        f"<p>{escape(operation['summary'])}. {escape(operation['description'])}</p>"
        f"{_table('Parameter', rows) if rows else ''}{_table('Status', answers)}</section>"
    )


def _table(heading: str, rows: Sequence[tuple[str, str]]) -> str:
    """Return rows as a table."""
    cells = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(text)}</td></tr>' for name, text in rows
    )
    return f'<table><tr><th scope="col">{heading}</th><th scope="col">Meaning</th></tr>{cells}</table>'


def _uploads() -> dict[str, Any]:
    """Return the kinds of bodies of an upload."""
    binary = {"type": "string", "format": "binary"}
    image = {"type": "array", "items": binary}
    return {
        "application/octet-stream": {"schema": binary},
        "multipart/form-data": {"schema": {"type": "object", "properties": {"image": image}}},
    }


def _query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    """Return a parameter of the query."""
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def _operation(
    summary: str,
    description: str,
    responses: dict[str, tuple[str, Any]],
    parameters: Sequence[dict[str, Any]] = (),
    *,
    is_job: bool = False,
) -> dict[str, Any]:
    """Return an operation."""
    job = {"name": "job", "in": "path", "required": True, "schema": {"type": "string"}}
    found = responses | ({"404": ("The job is unknown, or was removed.", _JSON)} if is_job else {})
    return {
        "summary": summary,
        "description": description,
        "parameters": [*([job] if is_job else []), *parameters],
        "security": [{"token": []}, {}],
        "responses": {
            status: {"description": text} | ({} if content is None else {"content": content})
            for status, (text, content) in found.items()
        },
    }


def _result(
    summary: str, description: str, content: Any, parameters: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Return the operation of a result."""
    answers = {"200": ("The result.", content), "409": ("The job is not done.", _JSON)}
    return _operation(summary, description, answers, parameters, is_job=True)
