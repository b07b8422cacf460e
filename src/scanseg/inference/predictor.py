"""Segmentation of images from files or arrays."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, UInt8

from scanseg.errors import UsageError
from scanseg.inference.arrays import Device
from scanseg.inference.ensemble import average_on_source, share_progress
from scanseg.inference.folder import predict_folder, predict_in_turn
from scanseg.inference.folder_options import FolderOptions
from scanseg.inference.foreign import as_path
from scanseg.inference.inputs import (
    Source,
    describe,
    find_warnings,
    open_source,
    orientation_warning,
    preprocess_source,
)
from scanseg.inference.model_digest import compute_digest
from scanseg.inference.networks import Networks
from scanseg.inference.outputs import OutputFormat
from scanseg.inference.plan_predictor import PlanPredictor
from scanseg.inference.postprocessing import NOTHING, postprocess
from scanseg.inference.prediction import PlanPrediction, Prediction, PreparedImage
from scanseg.inference.resample import SourceMaps
from scanseg.preprocessing import to_grid
from scanseg.progress import ProgressCallback, ProgressUpdate, ignore_progress
from scanseg.settings import as_tuple
from scanseg.specs import CaseGeometry, Plan, PostprocessingSpec, PredictionRecord, SegmentCodes

if TYPE_CHECKING:
    import torch
    from torch import nn

    from scanseg.runtime import Precision


class Predictor:
    """A model on its device that segments images.

    A model has a network with its plan. It may also have a first stage (cascade) and members with other plans
    (ensemble).
    """

    def __init__(
        self,
        plan: Plan,
        network: "nn.Module | Networks",
        *,
        device: "torch.device | None" = None,
        model: str = "a network in memory",
        postprocessing: PostprocessingSpec = NOTHING,
        first_stage: "Predictor | None" = None,
        members: "Sequence[Predictor]" = (),
        precision: "Precision | None" = None,
        cuda_graph: bool = True,
        warnings: Sequence[str] = (),
        temperatures: Sequence[float] | None = None,
    ) -> None:
        """Move a network to a device and set it to evaluation.

        Args:
            plan: Plan of the network: preprocessing, windows and labels.
            network: Network of the plan, or networks of another library on their device.
            device: Device of a network of PyTorch. `None`: the CPU. Networks of another library have their own.
            model: Source of the network, for the record of predictions.
            postprocessing: Components to remove from label maps. Defaults to none.
            first_stage: First stage of a cascade. It segments an image before this network does.
            members: Predictors of other plans for the same labels. All probabilities are averaged on the grid of the
                image. The members' own postprocessing is not applied.
            precision: Precision of the network's products. `None`: that of the plan's training.
            cuda_graph: On a GPU with CUDA, replay the network's passes as a CUDA graph. Results are equal. Small
                batches are much faster, and the graph needs the memory of one pass. If a pass cannot be captured, the
                reason is logged and passes run directly.
            warnings: Warnings about the model, which each prediction repeats.
            temperatures: Temperature of each output for probabilities and uncertainty, see
                `scanseg.inference.uncertainty.to_probabilities`. Label maps do not depend on it. `None`: all are 1.

        Raises:
            UsageError: The device does not support the precision.
            ScansegError: The network does not fit into memory.
        """
        self.plan = plan
        self.model = model
        self.postprocessing = postprocessing
        self.first_stage = first_stage
        self.members = tuple(members)
        if self.members and temperatures is not None:
            raise UsageError("temperatures: expected none for the mean of several plans. Leave them out.")
        self.temperatures = None if temperatures is None else tuple(temperatures)
        self._warnings = tuple(warnings)
        if not isinstance(network, Networks):
            from scanseg.inference.torch_networks import TorchNetworks

            network = TorchNetworks(
                network,
                device=device,
                precision=precision or plan.training.precision,
                cuda_graph=cuda_graph,
            )
        self.networks: Networks = network
        self._plan_predictor = PlanPredictor(plan, self.networks, temperatures=self.temperatures)

    @property
    def network(self) -> Any:
        """The network: a module of PyTorch, or a function of arrays in an exported model."""
        return self.networks.network

    @property
    def device(self) -> Device:
        """Device of the computation."""
        return self.networks.device

    @property
    def libraries(self) -> tuple[str, ...]:
        """Names of the Python packages that compute, for records."""
        return self.networks.libraries

    def describe_device(self) -> str:
        """Return the device with its product name or its threads."""
        return self.networks.describe_device()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the model, which each prediction repeats."""
        unknown = orientation_warning(self.plan)
        return tuple(dict.fromkeys((*self._warnings, *(() if unknown is None else (unknown,)))))

    @property
    def precision(self) -> str:
        """Type of the networks' products, such as `bfloat16`.

        Several types are joined by ` + `.
        """
        own = self.networks.precision
        return " + ".join(dict.fromkeys((own, *(member.precision for member in self.members))))

    @property
    def recipe(self) -> str:
        """Name of the recipe, or names joined by ` + `."""
        return " + ".join((self.plan.recipe, *(member.recipe for member in self.members)))

    def compute_digest(self) -> str:
        """Return the model digest: a checksum of plans, weights and postprocessing.

        Returns:
            8 hexadecimal digits. The weights of all networks are read.
        """
        return compute_digest(self)

    def mirrors(self, *, mirror: bool | None) -> bool:
        """Return whether predictions of the first plan or of a member are averaged over flips.

        Args:
            mirror: The request. `None`: as the plans' `inference.mirror` say.

        Raises:
            UsageError: `mirror` is true, and no plan has mirror axes.
        """
        self.mirror_axes(mirror=mirror)
        return any(each._averages(mirror=mirror) for each in (self, *self.members))

    def _averages(self, *, mirror: bool | None) -> bool:
        """Return whether this plan's predictions are averaged over flips."""
        return self.plan.inference.mirror if mirror is None else mirror

    def mirror_axes(self, *, mirror: bool | None) -> tuple[int, ...]:
        """Return the patch axes of mirroring of the first plan.

        Args:
            mirror: Average over flips. False: no axes. `None`: the plan's `inference.mirror`.

        Raises:
            UsageError: `mirror` is true, and no plan has mirror axes.
        """
        if mirror and not any(each.plan.inference.mirror_axes for each in (self, *self.members)):
            raise UsageError(
                "mirroring: expected axes in the plan's inference.mirror_axes, got none. Predict without mirroring."
            )
        return self.plan.inference.mirror_axes if self._averages(mirror=mirror) else ()

    def num_members(self, *, mirror: bool | None) -> int:
        """Return the number of averaged predictions: one per network and flip.

        Args:
            mirror: Average over flips along the plans' `inference.mirror_axes`. `None`: as the plans'
                `inference.mirror` say.

        Raises:
            UsageError: `mirror` is true, and no plan has mirror axes.
        """
        self.mirror_axes(mirror=mirror)
        return sum(
            each._plan_predictor.num_members(mirror=each._averages(mirror=mirror))
            for each in (self, *self.members)
        )

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

    def explained_memory(self, geometry: CaseGeometry) -> AbstractContextManager[None]:
        """Explain too little memory for an image, with advice.

        Args:
            geometry: Geometry of the network's grid in the source.

        Returns:
            Context that raises `ScansegError` if its block runs out of memory.
        """
        return self._plan_predictor.explained_memory(geometry)

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
