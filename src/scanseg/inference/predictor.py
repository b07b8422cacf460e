"""Segmentation of images from files or arrays."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from scanseg.inference.ensemble import average_on_source, share_progress
from scanseg.inference.folder import predict_folder, predict_in_turn
from scanseg.inference.folder_options import FolderOptions
from scanseg.inference.foreign import as_path
from scanseg.inference.inputs import (
    Source,
    describe,
    find_warnings,
    open_source,
    preprocess_source,
)
from scanseg.inference.loaded_model import LoadedModel
from scanseg.inference.outputs import OutputFormat
from scanseg.inference.postprocessing import postprocess
from scanseg.inference.prediction import PlanPrediction, Prediction, PreparedImage
from scanseg.inference.resample import SourceMaps
from scanseg.preprocessing import to_grid
from scanseg.progress import ProgressCallback, ProgressUpdate, ignore_progress
from scanseg.settings import as_tuple
from scanseg.specs import CaseGeometry, PredictionRecord, SegmentCodes


class Predictor(LoadedModel):
    """A model on its device that segments images.

    A model has a network with its plan. It may also have a first stage (cascade) and members with other plans
    (ensemble).
    """

    def predict(
        self,
        source: Source,
        *,
        mirror: bool | None = None,
        probabilities: bool = False,
        uncertainty: bool = False,
        spacing: Sequence[float] | None = None,
        progress: ProgressCallback = ignore_progress,
    ) -> Prediction:
        """Segment one image.

        Args:
            source: File of an image, a DICOM series, a list of these with one channel each, the content of a file
                (bytes or a file object), an image (also one of pillow, SimpleITK or nibabel), or an array with axes
                (channel, z, y, x) or (channel, y, x). The channel axis may be missing if there is one channel. It may
                be the last axis if the first one has another size than the number of channels.
            mirror: Average over flips along `inference.mirror_axes`. `None`: the plan's `inference.mirror`.
            probabilities: Return the probabilities too.
            uncertainty: Return the entropy, and the disagreement if flips, networks or plans are averaged.
            spacing: Millimetres per voxel of an array along its spatial axes.
            progress: Called with each progress update. The first one has the warnings of the prediction, if any.

        Raises:
            InputError: The image cannot be read, or does not fit the plan.
            UsageError: The arguments exclude each other, or the plan has no mirror axes.
            ScansegError: Memory ran out, or a logit is not finite.
        """
        prepared = self.prepare(source, spacing=spacing)
        if prepared.warnings:
            progress(ProgressUpdate("predicting", 0, 1, describe(source), warnings=prepared.warnings))
        return self.predict_prepared(
            prepared, mirror=mirror, probabilities=probabilities, uncertainty=uncertainty, progress=progress
        )

    def prepare(self, source: Source, *, spacing: Sequence[float] | None = None) -> PreparedImage:
        """Read and preprocess an image on the host.

        Args:
            source: As for `predict`.
            spacing: As for `predict`.

        Raises:
            InputError: The image cannot be read, or does not fit the plan.
            UsageError: The arguments exclude each other.
            ScansegError: The memory of the host ran out.
        """
        prepared = self._preprocess(source, spacing=spacing)
        found = find_warnings(prepared.image, source, self.plan)
        return replace(prepared, warnings=(*found, *self.warnings))

    def _preprocess(self, source: Source, *, spacing: Sequence[float] | None = None) -> PreparedImage:
        """Read and preprocess an image without warnings."""
        image = open_source(source, self.plan, spacing=spacing)
        if isinstance(source, np.ndarray):
            others = [member._preprocess(source, spacing=spacing) for member in self.members]
        else:
            others = [member._preprocess(image) for member in self.members]
        array, geometry = preprocess_source(image, source, self.plan)
        return PreparedImage(image, array, geometry, tuple(others))

    def predict_prepared(
        self,
        prepared: PreparedImage,
        *,
        mirror: bool | None = None,
        probabilities: bool = False,
        uncertainty: bool = False,
        progress: ProgressCallback = ignore_progress,
    ) -> Prediction:
        """Segment an image that `prepare` returned.

        Args:
            prepared: The prepared image.
            mirror: As for `predict`, like the other arguments.
            probabilities: See `predict`.
            uncertainty: See `predict`.
            progress: See `predict`.

        Raises:
            UsageError: The plan has no mirror axes.
            ScansegError: Memory ran out, or a logit is not finite.
        """
        if self.members:
            maps = self._average_plans(
                prepared,
                mirror=mirror,
                probabilities=probabilities,
                uncertainty=uncertainty,
                progress=progress,
            )
        else:
            predicted = self._predict_first_stage(prepared, mirror=mirror, progress=progress)
            self.mirror_axes(mirror=mirror)
            maps = self._plan_predictor.segment(
                prepared.array,
                prepared.geometry,
                predicted=predicted,
                mirror=self._averages(mirror=mirror),
                probabilities=probabilities,
                uncertainty=uncertainty,
                progress=progress,
            )
        label_map = postprocess(maps.label_map, self.postprocessing, labels=self.plan.dataset.foreground)
        others = maps.probabilities, maps.entropy, maps.disagreement
        return Prediction(label_map, *others, prepared.image, prepared.warnings)

    def predict_preprocessed(
        self,
        image: Float32[np.ndarray, "channel z y x"],
        geometry: CaseGeometry,
        *,
        predicted: UInt8[np.ndarray, "z y x"] | None = None,
        mirror: bool | None = None,
        progress: ProgressCallback = ignore_progress,
    ) -> UInt8[np.ndarray, "*source"]:
        """Segment a preprocessed image, such as a case of a store.

        Only the networks of the first plan are used, without postprocessing. No image library is loaded.

        Args:
            image: Image on the network's grid.
            geometry: Geometry of that grid in the source.
            predicted: Labels of the first stage of a cascade on the network's grid.
            mirror: Average over flips along `inference.mirror_axes`. `None`: the plan's `inference.mirror`.
            progress: Called with each progress update.

        Returns:
            Label map on the source grid.

        Raises:
            UsageError: The plan has no mirror axes, or needs `predicted`.
            ScansegError: Memory ran out, or a logit is not finite.
        """
        self.mirror_axes(mirror=mirror)
        return self._plan_predictor.segment(
            image, geometry, predicted=predicted, mirror=self._averages(mirror=mirror), progress=progress
        ).label_map

    def predict_folder(
        self,
        source: str | Path | Sequence[str | Path],
        output: str | Path,
        *,
        mirror: bool | None = None,
        probabilities: bool = False,
        uncertainty: bool = False,
        overwrite: bool = False,
        skip_existing: bool = False,
        format: OutputFormat | None = None,
        series: str | Sequence[str] = (),
        segment_codes: SegmentCodes | None = None,
        pictures: bool = False,
        progress: ProgressCallback = ignore_progress,
    ) -> PredictionRecord:
        """Segment every case of folders and files.

        The output folder holds one label map per case, `dataset.json` and the record `prediction.json`. While one case
        is segmented, the next one is prepared and the previous one is written.

        Args:
            source: Folder of images named as in training, the file of one case, a DICOM series (folder or zip file), or
                a list of these.
            output: Folder for the results. It is created if it is missing.
            mirror: Average over flips along `inference.mirror_axes`. `None`: the plan's `inference.mirror`.
            probabilities: Write the probabilities too, as `CASE.npz`.
            uncertainty: Write the entropy, and the disagreement if flips, networks or plans are averaged.
            overwrite: Replace files of an earlier prediction.
            skip_existing: Skip cases whose files an earlier prediction of the same model wrote.
            format: Ending of the label maps without its dot, such as `nrrd`, or `dicom-seg` for DICOM
                Segmentations. `None`: that of the image, or `nii.gz` for DICOM series.
            series: UIDs of the DICOM series to segment, or their beginnings. Empty: all cases.
            segment_codes: Codes of the segments of DICOM Segmentations. `None`: all are coded as tissue.
            pictures: Write a picture of each image with its label map, as `pictures/CASE.png`.
            progress: Called with each progress update: every case and every pass of the network.

        Returns:
            The record.

        Raises:
            InputError: No cases are found, or files would be replaced. This is raised before any work. Or some cases
                could not be segmented. This is raised after all other cases.
            UsageError: The arguments exclude each other, or the plan has no mirror axes.
        """
        sources = [source] if isinstance(source, str | Path) or not isinstance(source, Sequence) else source
        return predict_folder(
            self,
            [as_path(each, name="source") for each in sources],
            output=as_path(output, name="output"),
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
            progress=progress,
            run=partial(predict_in_turn, self),
        )

    def predict_plan(
        self,
        array: Float32[np.ndarray, "channel z y x"],
        geometry: CaseGeometry,
        *,
        predicted: UInt8[np.ndarray, "z y x"] | None,
        mirror: bool | None,
        uncertainty: bool = False,
        progress: ProgressCallback = ignore_progress,
    ) -> PlanPrediction:
        """Return the logits of the first plan's networks, computed on demand.

        Args:
            array: Image on the network's grid.
            geometry: Geometry of that grid in the source.
            predicted: Labels of the first stage of a cascade on that grid.
            mirror: Average over flips along `inference.mirror_axes`. `None`: the plan's `inference.mirror`.
            uncertainty: Add the disagreement of flips and networks if there are several.
            progress: Called with each progress update.

        Raises:
            UsageError: The plan has no mirror axes, or needs `predicted`.
        """
        self.mirror_axes(mirror=mirror)
        return self._plan_predictor.predict(
            array,
            geometry,
            predicted=predicted,
            mirror=self._averages(mirror=mirror),
            uncertainty=uncertainty,
            progress=progress,
        )

    def _average_plans(
        self,
        prepared: PreparedImage,
        *,
        mirror: bool | None,
        probabilities: bool,
        uncertainty: bool,
        progress: ProgressCallback,
    ) -> SourceMaps:
        """Return the maps of the mean probabilities of all plans."""
        self.mirror_axes(mirror=mirror)
        dataset, parts = self.plan.dataset, [prepared, *prepared.members]
        with self.explained_memory(prepared.geometry):
            predictions = [
                each.predict_plan(
                    part.array,
                    part.geometry,
                    predicted=each._predict_first_stage(part, mirror=mirror, progress=progress),
                    mirror=each._averages(mirror=mirror) and bool(each.plan.inference.mirror_axes),
                    uncertainty=uncertainty,
                    progress=share,
                )
                for each, part, share in zip(
                    (self, *self.members), parts, share_progress(progress, len(parts)), strict=True
                )
            ]
            return average_on_source(
                predictions,
                num_outputs=dataset.num_outputs,
                regions_class_order=dataset.regions_class_order if dataset.has_regions else None,
                device=self.device,
                probabilities=probabilities,
                uncertainty=uncertainty,
            )

    def _predict_first_stage(
        self, prepared: PreparedImage, *, mirror: bool | None, progress: ProgressCallback
    ) -> UInt8[np.ndarray, "z y x"] | None:
        """Return the first stage's labels on the network's grid. `None`: no cascade."""
        if self.plan.cascade is None or self.first_stage is None:
            return None
        image = self.first_stage._preprocess(prepared.image)
        first = self.first_stage.predict_prepared(image, mirror=mirror, progress=progress).label_map
        return to_grid(first, prepared.geometry, self.plan.preprocessing)
