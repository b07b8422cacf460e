"""The web application of a server: jobs, models, health and its description."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from scanseg.errors import InputError
from scanseg.inference import Predictor
from scanseg.serving.jobs import Job, JobQueue, QueueFullError
from scanseg.serving.models import describe_model
from scanseg.serving.openapi import make_document, render_page
from scanseg.serving.security import Access, Guard
from scanseg.serving.segmenting import LABEL_MAP_FORMATS, make_result
from scanseg.serving.uploads import DisconnectError, UploadError, drain, receive_files
from scanseg.version import __version__

_DRAIN_SECONDS = 10.0
_LONGEST_WAIT_SECONDS = 30.0
_SECONDS_BETWEEN_CHECKS = 0.05
_FILES = ("label-map", "dicom-seg", "entropy", "disagreement")
"""Results that are files."""


def make_app(
    models: Mapping[str, Predictor],
    jobs: JobQueue,
    access: Access,
    *,
    routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """Return the web application.

    Args:
        models: The models by name.
        jobs: The queue.
        access: Conditions of access.
        routes: Further routes, which come first.
    """
    api = _Api(models, jobs)
    return Starlette(
        routes=[
            *routes,
            Route("/", lambda request: RedirectResponse("/docs")),
            Route("/health", api.show_health),
            Route("/models", api.list_models),
            Route("/jobs", api.create_job, methods=["POST"]),
            Route("/jobs/{job}", api.show_job, methods=["GET"]),
            Route("/jobs/{job}", api.cancel_job, methods=["DELETE"]),
            Route("/jobs/{job}/volumes", api.show_volumes),
            *(Route(f"/jobs/{{job}}/{name}", partial(api.send_file, name)) for name in _FILES),
            Route("/openapi.json", api.show_document),
            Route("/docs", api.show_page),
        ],
        middleware=[Middleware(Guard, access=access)],
        exception_handlers={
            HTTPException: _show_http_error,
            UploadError: _show_upload_error,
            DisconnectError: _ignore_disconnect,
            QueueFullError: _show_full_queue,
        },
    )


class _Api:
    """Handlers of requests."""

    def __init__(self, models: Mapping[str, Predictor], jobs: JobQueue) -> None:
        self._models, self._jobs = models, jobs
        self._document = make_document(list(models), jobs.limits)

    async def show_health(self, request: Request) -> Response:
        """Show whether the server accepts jobs."""
        state = "stopping" if self._jobs.is_closed else "ok"
        return JSONResponse(
            {
                "status": state,
                "version": __version__,
                "waiting": self._jobs.num_waiting,
                "places": self._jobs.limits.queue_size,
                "running": self._jobs.is_running,
            },
            status_code=503 if self._jobs.is_closed else 200,
        )

    async def list_models(self, request: Request) -> Response:
        """List the models."""
        return JSONResponse({"models": [describe_model(*each) for each in self._models.items()]})

    async def create_job(self, request: Request) -> Response:
        """Receive an image and put it into the queue."""
        try:
            model = self._choose_model(request)
            mirror, uncertainty = _flag(request, "mirror"), _flag(request, "uncertainty") or False
            if mirror and not self._models[model].plan.inference.mirror_axes:
                raise HTTPException(
                    400, f"mirror: expected a model with mirror axes, got {model}. Leave it out."
                )
            job = self._jobs.reserve()
        except (HTTPException, QueueFullError):
            await drain(request, seconds=_DRAIN_SECONDS)
            raise
        job.model, job.mirror, job.uncertainty = model, mirror, uncertainty
        try:
            job.files = await receive_files(request, job.folder, self._jobs.limits)
            self._check_channels(job)
        except BaseException as error:
            self._jobs.drop(job)
            if isinstance(error, UploadError) and error.status != 408:
                await drain(request, seconds=_DRAIN_SECONDS)
            raise
        self._jobs.submit(job)
        return JSONResponse(describe_job(job), status_code=202, headers={"location": f"/jobs/{job.id}"})

    async def show_job(self, request: Request) -> Response:
        """Show a job. With `wait`, wait for a change."""
        job = self._find(request)
        deadline = time.monotonic() + _seconds(request)
        first = (job.state, job.progress)
        while (job.state, job.progress) == first and not job.has_ended and time.monotonic() < deadline:
            await asyncio.sleep(_SECONDS_BETWEEN_CHECKS)
        if job.state in ("failed", "cancelled"):
            job.was_fetched = True
        return JSONResponse(describe_job(job))

    async def cancel_job(self, request: Request) -> Response:
        """Cancel a job and remove its files."""
        await asyncio.to_thread(self._jobs.cancel, self._find(request))
        return Response(status_code=204)

    async def show_volumes(self, request: Request) -> Response:
        """Show the volumes of a finished job."""
        job = self._find_done(request)
        job.was_fetched = True
        return JSONResponse({"model": job.model, "labels": job.volumes, "warnings": job.warnings})

    async def send_file(self, name: str, request: Request) -> Response:
        """Send the file of a result."""
        job = self._find_done(request)
        form = request.query_params.get("format")
        if form is not None and (name != "label-map" or form not in LABEL_MAP_FORMATS):
            raise HTTPException(
                400, f"format: expected {', '.join(LABEL_MAP_FORMATS)} of a label map, got another."
            )
        predictor = self._models[job.model]
        try:
            path = await asyncio.to_thread(make_result, job, name, format=form, predictor=predictor)
        except InputError as error:
            raise HTTPException(409, str(error)) from error
        job.was_fetched = True
        return FileResponse(path, media_type="application/octet-stream", filename=_download_name(name, path))

    async def show_document(self, request: Request) -> Response:
        """Show the OpenAPI document."""
        return JSONResponse(self._document)

    async def show_page(self, request: Request) -> Response:
        """Show the OpenAPI document as a page."""
        return HTMLResponse(render_page(self._document))

    def _choose_model(self, request: Request) -> str:
        """Return the name of the model of a request."""
        name = request.query_params.get("model")
        if name is None and len(self._models) == 1:
            return next(iter(self._models))
        if name is None or name not in self._models:
            known = ", ".join(self._models)
            raise HTTPException(400, f"model: expected one of {known}, got {name!r}. Add ?model=NAME.")
        return name

    def _check_channels(self, job: Job) -> None:
        """Check the number of files."""
        wanted = self._models[job.model].plan.dataset.num_channels
        if len(job.files) not in (1, wanted):
            raise UploadError(
                f"upload: expected 1 file, or {wanted} with one channel each, got {len(job.files)}. Send the channels "
                "in the order of /models.",
                status=400,
            )

    def _find(self, request: Request) -> Job:
        """Return the job of a request."""
        job = self._jobs.find(request.path_params["job"])
        if job is None:
            raise HTTPException(
                404, "job: expected a known job, got an unknown or removed one. Send it again."
            )
        return job

    def _find_done(self, request: Request) -> Job:
        """Return the finished job of a request."""
        job = self._find(request)
        if job.state != "done":
            reason = f" {job.error}" if job.error else ""
            raise HTTPException(409, f"job: expected the state done, got {job.state}.{reason}")
        return job


def describe_job(job: Job) -> dict[str, Any]:
    """Return the state of a job as JSON values.

    Args:
        job: The job.
    """
    update = job.progress
    return {
        "id": job.id,
        "model": job.model,
        "state": job.state,
        "progress": None
        if update is None
        else {"task": update.task, "done": update.done, "total": update.total},
        "error": job.error,
        "warnings": job.warnings,
        "seconds": None if job.seconds is None else round(job.seconds, 3),
        "results": [f"/jobs/{job.id}/{name}" for name in _results_of(job)],
    }


def _results_of(job: Job) -> list[str]:
    """Return the names of the results of a job."""
    if job.state != "done":
        return []
    segmentation = ["dicom-seg"] if job.files[0].suffix == ".zip" else []
    return [*job.results, *segmentation, "volumes"]


def _flag(request: Request, name: str) -> bool | None:
    """Return a flag of the query. `None`: not given."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if text not in ("true", "false"):
        raise HTTPException(400, f"{name}: expected true or false, got another text.")
    return text == "true"


def _seconds(request: Request) -> float:
    """Return the seconds to wait for."""
    text = request.query_params.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _LONGEST_WAIT_SECONDS:
        raise HTTPException(400, f"wait: expected 0 to {_LONGEST_WAIT_SECONDS:g} seconds, got another text.")
    return seconds


def _download_name(name: str, path: Path) -> str:
    """Return the file name that clients see."""
    return name + "".join(path.suffixes)


async def _show_http_error(request: Request, error: Exception) -> Response:
    """Show an error as JSON."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)


async def _show_upload_error(request: Request, error: Exception) -> Response:
    """Show the reason for which an upload is refused."""
    assert isinstance(error, UploadError)
    return JSONResponse({"error": str(error)}, status_code=error.status)


async def _ignore_disconnect(request: Request, error: Exception) -> Response:
    """Return a response that no client reads."""
    return Response(status_code=400)


async def _show_full_queue(request: Request, error: Exception) -> Response:
    """Ask the client to try again later."""
    assert isinstance(error, QueueFullError)
    headers = {"retry-after": str(error.retry_seconds)}
    return JSONResponse({"error": str(error)}, status_code=503, headers=headers)
