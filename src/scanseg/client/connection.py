"""Connection to a server by httpx."""

import os
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Literal, Self

from scanseg.errors import InputError, ScansegError, UsageError
from scanseg.files import written_whole
from scanseg.imaging import files_of, split_series_path
from scanseg.progress import ProgressCallback, ProgressUpdate, ignore_progress

try:
    import httpx
except ImportError as error:  # pragma: no cover - one environment has it or not
    raise UsageError(
        'client: expected the package httpx, got none. Install it by pip install "scanseg[serve]".'
    ) from error

ResultName = Literal["label-map", "dicom-seg", "entropy", "disagreement"]
"""Results of a job that are files."""
_WAIT_SECONDS = 10.0
_MOST_RETRY_SECONDS = 60.0
_ENDED = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class JobStatus:
    """State of a job on a server."""

    id: str
    """Name of the job."""
    model: str
    """Name of its model."""
    state: str
    """`waiting`, `running`, `done`, `failed` or `cancelled`."""
    progress: dict[str, Any] | None
    """`task`, and `done` of `total` units. `None`: not begun."""
    error: str | None
    """Reason of a failure. `None`: no failure."""
    warnings: tuple[str, ...]
    """Unusual properties of the image and the model."""
    seconds: float | None
    """Duration of the segmentation. `None`: not ended."""
    results: tuple[str, ...]
    """Paths of the results on the server."""

    @property
    def has_ended(self) -> bool:
        """True if the job does not change any more."""
        return self.state in _ENDED


class Client:
    """A connection to a server.

    Args:
        url: Address of the server, such as `http://127.0.0.1:8080`.
        token: Token of the server. `None`: the environment variable `SCANSEG_TOKEN`, if it is set.
        timeout_seconds: Longest time without an answer.

    Raises:
        UsageError: The address has another form.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout_seconds: float = 60.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"server: expected an address http://HOST:PORT, got {url!r}.")
        token = token or os.environ.get("SCANSEG_TOKEN")
        self.url = url.rstrip("/")
        """Address of the server."""
        self._http = httpx.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=timeout_seconds,
            trust_env=False,  # images do not pass through a proxy of the environment
        )

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def health(self) -> dict[str, Any]:
        """Return the state of the server: status, version, waiting jobs and places."""
        return self._ask("GET", "/health").json()

    def models(self) -> list[dict[str, Any]]:
        """Return name, channels, labels and further properties of each model."""
        return self._ask("GET", "/models").json()["models"]

    def submit(
        self,
        image: str | Path | Sequence[str | Path],
        *,
        model: str | None = None,
        mirror: bool | None = None,
        uncertainty: bool = False,
        patience_seconds: float = 600.0,
    ) -> JobStatus:
        """Send an image.

        While the queue is full, the client waits as long as the server asks for, and sends it again.

        Args:
            image: File of an image (NIfTI, PNG, JPEG), folder or zip file of a DICOM series, or the files of the
                channels in their order.
            model: Name of the model. `None`: the only model of the server.
            mirror: Average over flips. `None`: the choice of the model's plan.
            uncertainty: Make the uncertainty maps too.
            patience_seconds: Longest time to wait for a place in the queue.

        Returns:
            The job.

        Raises:
            InputError: A file is missing, or the server refuses the image.
            ScansegError: The server does not answer, or its queue stays full.
        """
        query = {"uncertainty": str(uncertainty).lower()}
        if mirror is not None:
            query["mirror"] = str(mirror).lower()
        if model is not None:
            query["model"] = model
        paths = [Path(image)] if isinstance(image, str | Path) else [Path(each) for each in image]
        deadline = time.monotonic() + patience_seconds
        with _packed(paths) as files:
            while True:
                response = self._send(files, query)
                if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    return _status_of(_checked(response).json())
                pause = _retry_seconds(response)
                if time.monotonic() + pause > deadline:
                    raise ScansegError(f"{self.url}: {_reason(response)}")
                time.sleep(pause)

    def status(self, job: str, *, wait_seconds: float = 0.0) -> JobStatus:
        """Return the state of a job.

        Args:
            job: Name of the job.
            wait_seconds: Longest time to wait for a change, at most 30.

        Raises:
            InputError: The job is unknown.
        """
        return _status_of(self._ask("GET", f"/jobs/{job}", params={"wait": wait_seconds}).json())

    def wait(self, job: str, *, progress: ProgressCallback = ignore_progress) -> JobStatus:
        """Wait until a job has ended.

        An exception, such as an interrupt, cancels the job.

        Args:
            job: Name of the job.
            progress: Called with each progress update.

        Raises:
            InputError: The job failed or was cancelled.
        """
        try:
            while not (status := self.status(job, wait_seconds=_WAIT_SECONDS)).has_ended:
                progress(_update_of(status))
        except BaseException:
            self._cancel_quietly(job)
            raise
        if status.state != "done":
            raise InputError(status.error or f"job: expected the state done, got {status.state}.")
        progress(ProgressUpdate("predicting", 1, 1, warnings=status.warnings))
        return status

    def cancel(self, job: str) -> None:
        """Cancel a job and remove its files from the server.

        Args:
            job: Name of the job.
        """
        self._ask("DELETE", f"/jobs/{job}")

    def volumes(self, job: str) -> dict[str, Any]:
        """Return the volumes of the labels of a finished job.

        Args:
            job: Name of the job.

        Returns:
            Voxels, and ml or mm2, by label.
        """
        return self._ask("GET", f"/jobs/{job}/volumes").json()["labels"]

    def download(
        self, job: str, path: str | Path, *, result: ResultName = "label-map", format: str | None = None
    ) -> Path:
        """Write a result of a finished job to a file.

        Args:
            job: Name of the job.
            path: File to write. It appears when it is complete, and an existing file is replaced.
            result: Result to write.
            format: Ending of a label map: `nii.gz`, `nii`, `nrrd`, `mha` or `png`. `None`: `png` for pictures, else
                `nii.gz`.

        Raises:
            InputError: The job has no such result, or has not finished.
        """
        query = {} if format is None else {"format": format}
        path = Path(path)
        with (
            self._explained(),
            self._http.stream("GET", f"/jobs/{job}/{result}", params=query) as response,
            written_whole(path) as temporary,
        ):
            if response.is_error:
                response.read()
                _checked(response)
            with temporary.open("wb") as file:
                for chunk in response.iter_bytes():
                    file.write(chunk)
        return path

    def predict(
        self,
        image: str | Path | Sequence[str | Path],
        output: str | Path,
        *,
        model: str | None = None,
        mirror: bool | None = None,
        result: ResultName = "label-map",
        progress: ProgressCallback = ignore_progress,
    ) -> JobStatus:
        """Segment an image and write the label map to a file.

        Args:
            image: As for `submit`.
            output: File to write. The ending of a label map selects its format.
            model: Name of the model. `None`: the only model of the server.
            mirror: Average over flips. `None`: the choice of the model's plan.
            result: Result to write: the label map, or the DICOM Segmentation of a series.
            progress: Called with each progress update.

        Returns:
            The finished job. Further results can be fetched until the server removes them.

        Raises:
            InputError: The server refuses the image, or the job failed.
        """
        output = Path(output)
        job = self.submit(image, model=model, mirror=mirror)
        status = self.wait(job.id, progress=progress)
        format = None if result != "label-map" else _format_of(output)
        self.download(status.id, output, result=result, format=format)
        return status

    def _send(self, files: Sequence[Path], query: dict[str, str]) -> httpx.Response:
        """Send the files of an image. Their names stay here."""
        with ExitStack() as stack, self._explained():
            opened = [("image", ("image", stack.enter_context(path.open("rb")))) for path in files]
            return self._http.post("/jobs", params=query, files=opened)

    def _ask(self, method: str, path: str, *, params: dict[str, Any] | None = None) -> httpx.Response:
        """Send a request and check its response."""
        with self._explained():
            return _checked(self._http.request(method, path, params=params))

    def _cancel_quietly(self, job: str) -> None:
        """Cancel a job after another error. A failure is ignored."""
        try:
            self.cancel(job)
        except ScansegError:
            return

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Explain failures of the connection."""
        try:
            yield
        except httpx.TimeoutException as error:
            raise ScansegError(
                f"{self.url}: expected an answer within {self._http.timeout.read} s, got none. Try again later."
            ) from error
        except httpx.HTTPError as error:
            raise ScansegError(
                f"{self.url}: expected a server of scanseg, got none ({error}). Start it by scanseg serve."
            ) from error


@contextmanager
def _packed(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield the files to send. DICOM folders become zip files."""
    for path in paths:
        if not path.exists() and split_series_path(path) is None:
            raise InputError(f"{path}: expected a file or a DICOM series, got nothing. Check the path.")
    with TemporaryDirectory() as folder:
        yield [_pack(path, Path(folder) / f"{number}.zip") for number, path in enumerate(paths)]


def _pack(path: Path, target: Path) -> Path:
    """Return a file, or the zip file of a folder."""
    split = split_series_path(path)
    if split is None and path.is_dir():
        raise UsageError(f"{path}: expected a file or a DICOM series, got a folder. Give one image.")
    if split is None or (split[1] is None and path.is_file()):
        return path
    files = files_of(path)
    with zipfile.ZipFile(target, "w") as archive:
        for number, file in enumerate(files):
            archive.write(file, f"{number}.dcm")
    return target


def _format_of(path: Path) -> str:
    """Return the format of a label map by its ending."""
    formats = ("nii.gz", "nii", "nrrd", "mha", "png")
    found = next((each for each in formats if path.name.lower().endswith(f".{each}")), None)
    if found is None:
        raise UsageError(f"{path}: expected one of the endings {', '.join(formats)}, got another.")
    return found


def _checked(response: httpx.Response) -> httpx.Response:
    """Return a response, or raise its error."""
    if response.is_error:
        raise InputError(_reason(response))
    return response


def _reason(response: httpx.Response) -> str:
    """Return the error of a response."""
    try:
        return str(response.json()["error"])
    except (ValueError, LookupError, TypeError):
        return f"{response.url}: expected a server of scanseg, got the status {response.status_code}."


def _retry_seconds(response: httpx.Response) -> float:
    """Return the time that a server asks to wait."""
    text = response.headers.get("retry-after", "1")
    return min(_MOST_RETRY_SECONDS, float(text)) if text.isdigit() else 1.0


def _status_of(values: dict[str, Any]) -> JobStatus:
    """Return a job of a response."""
    lists = {name: tuple(values[name]) for name in ("warnings", "results")}
    return JobStatus(**{name: values[name] for name in JobStatus.__dataclass_fields__} | lists)


def _update_of(status: JobStatus) -> ProgressUpdate:
    """Return the progress of a job."""
    found = status.progress
    if found is None or status.state == "waiting":
        return ProgressUpdate("waiting", 0, 1)
    return ProgressUpdate(found["task"], found["done"], found["total"])
