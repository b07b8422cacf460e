"""Predictions on several devices or a cluster."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scanseg.api.paths import AnyPath
from scanseg.api.prediction import find_folder
from scanseg.errors import UsageError
from scanseg.progress import ProgressChoice
from scanseg.progress_display import display
from scanseg.settings import as_tuple
from scanseg.specs import PredictionRecord, SegmentCodes

if TYPE_CHECKING:
    from scanseg.cohort import EngineName
    from scanseg.inference import OutputFormat, Runtime
    from scanseg.models import Weights
    from scanseg.runtime import Precision


def predict_cohort(
    model: AnyPath,
    source: AnyPath | Sequence[AnyPath],
    output: AnyPath,
    *,
    devices: Sequence[str] = (),
    on: "EngineName | None" = None,
    ray_address: str | None = None,
    slurm_options: Mapping[str, object] | None = None,
    weights: "Weights" = "exported",
    precision: "Precision | None" = None,
    runtime: "Runtime | None" = None,
    mirror: bool | None = None,
    probabilities: bool = False,
    uncertainty: bool = False,
    overwrite: bool = False,
    skip_existing: bool = False,
    format: "OutputFormat | None" = None,
    series: str | Sequence[str] = (),
    segment_codes: SegmentCodes | None = None,
    pictures: bool = False,
    progress: ProgressChoice = True,
) -> PredictionRecord:
    """Segment folders and files on several devices or a cluster.

    Each device or cluster worker loads the model once and takes the next case as soon as it is free. Cases are read and
    written while others are segmented. A case that fails does not stop the others. If a worker ends, its cases are
    predicted again, each at most three times. The output folder is that of `Predictor.predict_folder`.

    Args:
        model: As for `load`, without addresses of the network for clusters.
        source: Folder of images, the file of one case, a DICOM series, or a list of these.
        output: Folder for the results. It is created if it is missing.
        devices: Devices of this machine, such as `("cuda:0", "cuda:1")`. A device that is named twice has two workers.
        on: `ray` for a Ray cluster, `slurm` for jobs of SLURM. All machines see model, images and
            output under the same paths.
        ray_address: Address of the Ray cluster. `None`: `RAY_ADDRESS`, the cluster of this machine, or a new one on it.
        slurm_options: With `slurm`: `jobs`, `gpus`, `cpus`, `time` in minutes, and long options of `sbatch`, by name.
        weights: As for `load`.
        precision: As for `load`.
        runtime: As for `load`.
        mirror: As for `Predictor.predict_folder`, like all further arguments.
        probabilities: Write the probabilities too.
        uncertainty: Write the entropy, and the disagreement if flips, networks or plans are averaged.
        overwrite: Replace files of an earlier prediction.
        skip_existing: Skip cases whose files an earlier prediction of the same model wrote.
        format: Format of the label maps. `None`: that of the image.
        series: UIDs of the DICOM series to segment, or their beginnings.
        segment_codes: Codes of the segments of DICOM Segmentations.
        pictures: Write a picture of each image with its label map.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Returns:
        The record. Each case has its device.

    Raises:
        InputError: As for `Predictor.predict_folder`.
        UsageError: Neither devices nor a cluster are given, a device is missing, or the cluster cannot be reached.
        ScansegError: Workers ended while they loaded the model.

    Example:
        >>> import scanseg
        >>> record = scanseg.predict_cohort("MODEL", "image.png", "cohort", devices=("cpu",), progress=False)
        >>> [case.label_map for case in record.cases]
        ['image.png']
    """
    from scanseg.cohort import ModelChoice, open_engine
    from scanseg.cohort import predict_cohort as predict
    from scanseg.inference import FolderOptions

    names = as_tuple(devices)
    if bool(names) == (on is not None):
        raise UsageError(
            "expected either devices of this machine or a cluster (on), got both or none. Give one."
        )
    sources = [source] if isinstance(source, str | Path) or not isinstance(source, Sequence) else source
    choice = ModelChoice(find_folder(model), weights=weights, precision=precision, runtime=runtime)
    with (
        display(progress) as shown,
        open_engine(on, ray_address=ray_address, slurm_options=slurm_options, output=Path(output)) as engine,
    ):
        return predict(
            choice,
            [Path(each) for each in sources],
            Path(output),
            workers=names if engine is None else engine,
            options=FolderOptions(
                mirror=mirror,
                probabilities=probabilities,
                uncertainty=uncertainty,
                overwrite=overwrite,
                skip_existing=skip_existing,
                format=format,
                series=as_tuple(series),
                segment_codes=segment_codes,
                pictures=pictures,
            ),
            progress=shown,
        )
