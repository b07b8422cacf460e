"""The viewer: a page with an image, overlays, predictions and corrections."""

import asyncio
import secrets
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from scanseg.errors import InputError
from scanseg.imaging import (
    MEDICAL_DECODERS,
    Image,
    decoder_of,
    file_ending,
    read_image,
    write_label_map,
)
from scanseg.inference import WRITTEN_AS, Predictor
from scanseg.serving.app import describe_job
from scanseg.serving.canonical import Canonical
from scanseg.serving.jobs import JobQueue
from scanseg.serving.models import label_names
from scanseg.serving.overlays import (
    DIFFERENCE_COLOURS,
    DIFFERENCE_LABELS,
    Overlay,
    compare_overlays,
    read_overlay,
)
from scanseg.serving.security import COOKIE, START_PATH

_PAGE = Path(__file__).parent / "page"
_NIFTI = "application/octet-stream"


class Viewer:
    """An image with its overlays.

    Args:
        paths: File of the image, or one for each channel, or the path of a DICOM series.
        label_maps: Label maps on its grid.
        models: Models that segment it, by name.
        output: File of the saved label map. `None`: `NAME-corrected` in the working folder.
        overwrite: Replace the output if it exists.

    Raises:
        InputError: A file cannot be read, or a label map has another grid.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        label_maps: Sequence[Path],
        models: Mapping[str, Predictor],
        *,
        output: Path | None = None,
        overwrite: bool = False,
    ) -> None:
        self._paths, self._models = list(paths), models
        self._image: Image = read_image(self._paths)
        fitting = (model.plan for model in models.values() if model.plan.num_axes == self._image.num_axes)
        dataset = next((plan.dataset for plan in fitting), None)
        self._channel_names = _channel_names(self._image, dataset.channel_names if dataset else ())
        self._canonical = Canonical.of(self._image)
        self._is_medical = decoder_of(paths[0]) in MEDICAL_DECODERS
        self._output, self._may_overwrite = output or self._default_output(), overwrite
        self._overlays: dict[str, Overlay] = {}
        for path in label_maps:
            self._add(
                read_overlay(
                    path, id=_new_id(), image=self._image, canonical=self._canonical, dataset=dataset
                )
            )
        self._jobs: JobQueue | None = None

    def make_routes(self, jobs: JobQueue) -> list[BaseRoute]:
        """Return the routes of the viewer.

        Args:
            jobs: Queue of the server.
        """
        self._jobs = jobs
        return [
            Route("/", self._show_page),
            Route(START_PATH, _set_cookie),
            Route("/view/state", self._show_state),
            Route("/view/image/{channel:int}.nii", self._send_channel),
            Route("/view/overlays", self._create_overlay, methods=["POST"]),
            Route("/view/overlays/{id}.nii", self._send_overlay),
            Route("/view/overlays/{id}", self._replace_voxels, methods=["PUT"]),
            Route("/view/overlays/{id}", self._remove_overlay, methods=["DELETE"]),
            Route("/view/overlays/{id}/save", self._save, methods=["POST"]),
            Route("/view/compare", self._compare, methods=["POST"]),
            Route("/view/predict", self._predict, methods=["POST"]),
            Route("/view/results/{job}", self._add_results, methods=["POST"]),
            Mount("/page", StaticFiles(directory=_PAGE)),
        ]

    def _default_output(self) -> Path:
        """Return the file of the saved label map, in the working folder."""
        if decoder_of(self._paths[0]) == "dicom":
            return Path(f"{self._paths[0].stem}-corrected.nii.gz")
        ending = file_ending(self._paths[0])
        written = WRITTEN_AS.get(ending, ending)
        return Path(f"{self._paths[0].name[: -len(ending)]}-corrected{written}")

    def _add(self, overlay: Overlay) -> Overlay:
        """Add an overlay."""
        self._overlays[overlay.id] = overlay
        return overlay

    def _describe(self, overlay: Overlay) -> dict[str, Any]:
        """Return the description of an overlay."""
        is_volume = self._is_medical and self._image.num_axes == 3
        return overlay.describe(voxel_mm3=float(np.prod(self._image.spacing)) if is_volume else None)

    async def _show_page(self, request: Request) -> Response:
        return FileResponse(_PAGE / "index.html")

    async def _show_state(self, request: Request) -> Response:
        described = await asyncio.to_thread(
            lambda: [self._describe(overlay) for overlay in self._overlays.values()]
        )
        return JSONResponse(
            {
                "image": self._paths[0].name,
                "shape": list(self._canonical.shape),
                "is_volume": self._image.num_axes == 3,
                "channels": self._channel_names,
                "overlays": described,
                "models": [
                    {
                        "name": name,
                        "can_mirror": bool(model.plan.inference.mirror_axes),
                        "mirrors": model.plan.inference.mirror,
                    }
                    for name, model in self._models.items()
                ],
                "output": str(self._output),
            }
        )

    async def _send_channel(self, request: Request) -> Response:
        number = request.path_params["channel"]
        if number >= len(self._channel_names):
            raise HTTPException(404, "channel: expected a channel of the image, got another number.")

        def make() -> bytes:
            if _is_coloured(self._image):
                return self._canonical.to_nifti_colours(self._image)
            return self._canonical.to_nifti(self._canonical.turn(self._image.array[number]))

        return Response(await asyncio.to_thread(make), media_type=_NIFTI)

    async def _send_overlay(self, request: Request) -> Response:
        overlay = self._find(request.path_params["id"])
        content = await asyncio.to_thread(self._canonical.to_nifti, overlay.array)
        return Response(content, media_type=_NIFTI)

    async def _create_overlay(self, request: Request) -> Response:
        """Add an empty label map with known names of labels."""
        names, colours = {1: "label 1"}, {}
        if self._models:
            dataset = next(iter(self._models.values())).plan.dataset
            names, colours = label_names(dataset), dataset.colours
        elif known := [each for each in self._overlays.values() if each.kind == "labels"]:
            names, colours = known[0].labels or names, known[0].colours
        empty = np.zeros(self._canonical.shape, np.uint8)
        return JSONResponse(
            self._describe(self._add(Overlay(_new_id(), "new label map", "labels", empty, names, colours)))
        )

    async def _replace_voxels(self, request: Request) -> Response:
        """Replace the voxels of a label map (gzip data of uint8, x fastest)."""
        overlay = self._find_labels(request.path_params["id"])
        wanted, content = overlay.array.size, bytearray()
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            async for chunk in request.stream():
                content += unpacker.decompress(chunk, wanted + 1 - len(content))
                if len(content) > wanted:
                    break
        except zlib.error as error:
            raise HTTPException(400, f"voxels: expected gzip data, got other bytes ({error}).") from error
        if len(content) != wanted or not unpacker.eof:
            raise HTTPException(400, f"voxels: expected {wanted} bytes, got another number. Reload the page.")
        overlay.array = np.frombuffer(bytes(content), np.uint8).reshape(overlay.array.shape, order="F")
        return JSONResponse(await asyncio.to_thread(self._describe, overlay))

    async def _remove_overlay(self, request: Request) -> Response:
        del self._overlays[self._find(request.path_params["id"]).id]
        return Response(status_code=204)

    async def _save(self, request: Request) -> Response:
        """Write a label map to the output."""
        overlay = self._find_labels(request.path_params["id"])
        try:
            path = await asyncio.to_thread(self._write, overlay)
        except (InputError, OSError) as error:
            raise HTTPException(409, str(error)) from error
        return JSONResponse({"path": str(path)})

    def _write(self, overlay: Overlay) -> Path:
        """Write a label map to a new file, and return it."""
        path, number = self._output, 2
        while path.exists() and not self._may_overwrite:
            ending = file_ending(self._output)
            path = self._output.with_name(f"{self._output.name[: -len(ending)]}-{number}{ending}")
            number += 1
        like = self._image
        write_label_map(
            path, self._canonical.turn_back(overlay.array), like=replace(like, array=like.array[:1])
        )
        self._output, self._may_overwrite = path, True
        return path

    async def _compare(self, request: Request) -> Response:
        first, second = (
            self._find_labels(request.query_params.get(name, "")) for name in ("first", "second")
        )
        array, rows = await asyncio.to_thread(compare_overlays, first, second)
        title = f"difference: {first.title}, {second.title}"
        overlay = self._add(
            Overlay(_new_id(), title, "difference", array, DIFFERENCE_LABELS, DIFFERENCE_COLOURS)
        )
        return JSONResponse({"rows": rows, "overlay": self._describe(overlay)})

    async def _predict(self, request: Request) -> Response:
        """Put the image into the queue."""
        name = request.query_params.get("model", "")
        if name not in self._models or self._jobs is None:
            raise HTTPException(400, f"model: expected one of {', '.join(self._models)}, got {name!r}.")
        job = self._jobs.reserve()
        job.model, job.files = name, self._paths
        job.uncertainty = request.query_params.get("uncertainty") == "true"
        job.mirror = request.query_params.get("mirror") == "true"
        self._jobs.submit(job)
        return JSONResponse(describe_job(job), status_code=202)

    async def _add_results(self, request: Request) -> Response:
        """Add the results of a finished job as overlays."""
        job = None if self._jobs is None else self._jobs.find(request.path_params["job"])
        if job is None or job.state != "done":
            raise HTTPException(409, "job: expected a finished job, got another one. Run the model again.")
        dataset = self._models[job.model].plan.dataset
        added = list[Overlay]()
        for name, path in job.results.items():
            array = self._canonical.turn((await asyncio.to_thread(read_image, path)).array[0])
            if name == "label-map":
                names = label_names(dataset)
                added.append(Overlay(_new_id(), job.model, "labels", array, names, dataset.colours))
            else:
                scaled = array.astype(np.float32) / (255 if array.dtype == np.uint8 else 1)
                added.append(Overlay(_new_id(), f"{name} of {job.model}", "map", scaled, {}, {}))
        job.was_fetched = True
        return JSONResponse({"overlays": [self._describe(self._add(each)) for each in added]})

    def _find(self, id: str) -> Overlay:
        """Return an overlay by its name."""
        if id not in self._overlays:
            raise HTTPException(
                404, "overlay: expected an overlay of the viewer, got another. Reload the page."
            )
        return self._overlays[id]

    def _find_labels(self, id: str) -> Overlay:
        """Return a label map by its name."""
        overlay = self._find(id)
        if overlay.kind != "labels":
            raise HTTPException(
                400, f"overlay: expected a label map, got {overlay.title}. Choose another one."
            )
        return overlay


def _set_cookie(request: Request) -> Response:
    """Keep the token in a cookie, and show the page."""
    response = RedirectResponse("/")
    token = request.query_params.get("token", "")
    port = request.scope["server"][1]
    response.set_cookie(f"{COOKIE}-{port}", token, httponly=True, samesite="strict")
    return response


def _channel_names(image: Image, names: Sequence[str]) -> list[str]:
    """Return the names of the channels. Colours are one picture."""
    if _is_coloured(image):
        return ["colours"]
    if len(names) == image.num_channels:
        return list(names)
    return [f"channel {number}" for number in range(image.num_channels)]


def _is_coloured(image: Image) -> bool:
    """Return whether an image is a colour picture."""
    return image.num_axes == 2 and image.num_channels == 3 and image.array.dtype == np.uint8


def _new_id() -> str:
    """Return a new name of an overlay."""
    return secrets.token_hex(4)
