"""Segmentation of folders and files by a server."""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scanseg.client.connection import Client
from scanseg.errors import InputError, ScansegError, UsageError, refuse_faults
from scanseg.inference import CaseOutputs, OutputFormat, OutputOptions, check_output, find_outputs
from scanseg.messages import listed
from scanseg.progress import ProgressCallback, ProgressUpdate, ignore_progress
from scanseg.specs import DatasetSpec

_MOST_SENT = 2
"""Cases on the server at a time: one is sent while another one is segmented."""
_FORMATS = ("nii.gz", "nii", "nrrd", "mha", "png", "dicom-seg")


@dataclass(frozen=True)
class RemoteCase:
    """A case that a server has segmented."""

    name: str
    """Name of the case."""
    label_map: Path
    """Its label map."""
    seconds: float
    """Duration of the segmentation on the server."""
    warnings: tuple[str, ...]
    """Unusual properties of the image and the model."""


def predict_folder(
    client: Client,
    sources: Sequence[Path],
    output: Path,
    *,
    model: str,
    mirror: bool | None = None,
    uncertainty: bool = False,
    overwrite: bool = False,
    format: OutputFormat | None = None,
    progress: ProgressCallback = ignore_progress,
) -> list[RemoteCase]:
    """Segment every case of folders and files by a server.

    The label maps have the names that `scanseg predict` gives without a server. Their bytes are those of the server.

    Args:
        client: Connection to the server.
        sources: Folders of images named as in training, files of single cases, or DICOM series.
        output: Folder for the results. It is created if it is missing.
        model: Name of the model on the server.
        mirror: Average over flips. `None`: the choice of the model's plan.
        uncertainty: Write the uncertainty maps too.
        overwrite: Replace files of an earlier prediction.
        format: Ending of the label maps, or `dicom-seg`. `None`: that of the image, or `nii.gz` for DICOM series.
        progress: Called with each progress update.

    Returns:
        The cases.

    Raises:
        InputError: No cases are found, or some could not be segmented. This is raised after all other cases.
        UsageError: The model is unknown, files would be replaced, or the format is not one of a server.
    """
    described = _find_model(client, model)
    options = OutputOptions(
        probabilities=False, entropy=uncertainty, disagreement=False, format=format, series=()
    )
    dataset = DatasetSpec.model_validate(described["dataset"])
    found = find_outputs(sources, output, dataset=dataset, options=options)
    _check_formats(found)
    check_output(output, found, description="", overwrite=overwrite, continued=False)
    output.mkdir(parents=True, exist_ok=True)
    work = _Work(client, model=model, mirror=mirror, uncertainty=uncertainty)
    try:
        for number, outputs in enumerate(found):
            progress(ProgressUpdate("predicting", number, len(found), outputs.case.name))
            work.send(outputs)
            if len(work.sent) >= _MOST_SENT:
                work.fetch()
        while work.sent:
            work.fetch()
    except BaseException:
        work.cancel()
        raise
    progress(ProgressUpdate("predicting", len(found), len(found)))
    refuse_faults(client.url, work.faults)
    return work.done


class _Work:
    """Cases that are on the server, done or failed."""

    def __init__(self, client: Client, *, model: str, mirror: bool | None, uncertainty: bool) -> None:
        self._client, self._model, self._mirror, self._uncertainty = client, model, mirror, uncertainty
        self.sent = deque[tuple[CaseOutputs, str]]()
        self.done = list[RemoteCase]()
        self.faults = list[str]()

    def send(self, outputs: CaseOutputs) -> None:
        """Send a case."""
        try:
            job = self._client.submit(
                outputs.case.images, model=self._model, mirror=self._mirror, uncertainty=self._uncertainty
            )
        except InputError as error:
            self.faults.append(f"case {outputs.case.name}: {error}")
        else:
            self.sent.append((outputs, job.id))

    def fetch(self) -> None:
        """Wait for the oldest case and write its files."""
        outputs, job = self.sent[0]
        name, written = outputs.case.name, outputs.label_map
        try:
            status = self._client.wait(job)
            if outputs.entropy is not None:
                outputs.entropy.parent.mkdir(exist_ok=True)
                self._client.download(job, outputs.entropy, result="entropy")
            if written.suffix == ".dcm":
                self._client.download(job, written, result="dicom-seg")
            else:
                self._client.download(job, written, format=_format_of(written))
            self._client.cancel(job)  # removes its files from the server
        except InputError as error:
            self.faults.append(f"case {name}: {error}")
        else:
            self.done.append(RemoteCase(name, written, status.seconds or 0.0, status.warnings))
        self.sent.popleft()

    def cancel(self) -> None:
        """Cancel the cases on the server."""
        for _, job in self.sent:
            with suppress(ScansegError):
                self._client.cancel(job)


def _find_model(client: Client, name: str) -> dict[str, Any]:
    """Return the description of a model."""
    models = {each["name"]: each for each in client.models()}
    if name not in models:
        raise UsageError(f"{client.url}: expected one of the models {listed(sorted(models))}, got {name}.")
    return models[name]


def _check_formats(cases: Sequence[CaseOutputs]) -> None:
    """Refuse label maps in a format that servers do not write."""
    wrong = sorted({each.label_map.suffix for each in cases if _format_of(each.label_map) is None})
    if wrong:
        raise UsageError(
            f"--server: expected label maps in {', '.join(_FORMATS)}, got {', '.join(wrong)}. Choose one by --format."
        )


def _format_of(path: Path) -> str | None:
    """Return the format of a label map. `None`: servers lack it."""
    if path.suffix == ".dcm":
        return "dicom-seg"
    return next((each for each in _FORMATS if path.name.lower().endswith(f".{each}")), None)
