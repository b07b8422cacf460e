"""A network that segments images: from a file, or an array, to a label map on the same grid."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from scanseg.batches import one_hot, to_grid
from scanseg.errors import InputError, ScansegError, UsageError
from scanseg.inference.cuda_graph import CudaGraphNetwork
from scanseg.inference.folder import predict_folder
from scanseg.inference.inputs import Source, describe, open_source
from scanseg.inference.plan_prediction import PlanPrediction, restore_mean, share_progress
from scanseg.inference.postprocessing import NOTHING, postprocess
from scanseg.inference.prediction import Prediction, PreparedImage
from scanseg.inference.resample import Restored, resize_labels, restore
from scanseg.inference.uncertainty import Network
from scanseg.inference.windows import SlidingWindow, predict_slabs
from scanseg.models import LogitEnsemble
from scanseg.networks import place_network
from scanseg.preprocessing import preprocess_image, separates_z
from scanseg.progress import ProgressCallback, ignore_progress
from scanseg.runtime import Precision, autocast_dtype, lacks_memory, memory_for
from scanseg.specs import CaseGeometry, Plan, PostprocessingSpec, PredictionRecord


class Predictor:
    """A network on its device with the plan that says how to use it."""

    def __init__(
        self,
        plan: Plan,
        network: nn.Module,
        *,
        device: torch.device,
        model: str = "a network in memory",
        postprocessing: PostprocessingSpec = NOTHING,
        first_stage: "Predictor | None" = None,
        members: "Sequence[Predictor]" = (),
        precision: Precision | None = None,
        cuda_graph: bool = True,
    ) -> None:
        """Take a network into use; it is moved to the device and set to evaluation.

        Args:
            plan: How images become the network's input, and its output a label map.
            network: The network of the plan.
            device: Where to compute.
            model: Where the network comes from, for the record of predictions.
            postprocessing: What is removed from label maps.
            first_stage: The first stage of a cascade, which segments an image before this network does.
            members: Predictors of other plans for the same labels; the mean of all probabilities, on the grid of the
                image, decides. What they would remove from label maps, they do not.
            precision: Of the network's products; None: that of the plan's training.
            cuda_graph: On a GPU with CUDA, replay the network's passes as a CUDA graph: the same numbers, much
                sooner at small batches, for the memory of a pass. Where a pass cannot be captured, the reason is
                logged and passes run directly.
        """
        self.plan = plan
        self.device = device
        self.model = model
        self.postprocessing = postprocessing
        self.first_stage = first_stage
        self.members = tuple(members)
        self._autocast_dtype = autocast_dtype(device, precision or plan.training.precision)
        with memory_for("the network", device=device):
            self.network = place_network(network, device).eval()
        replayed = cuda_graph and device.type == "cuda"
        self._run = CudaGraphNetwork(self.network) if replayed else self.network

    @property
    def precision(self) -> str:
        """Type in which the network computes its products; of all plans, where they differ."""
        own = str(self._autocast_dtype or torch.float32).removeprefix("torch.")
        return " + ".join(dict.fromkeys((own, *(other.precision for other in self.members))))

    @property
    def recipe(self) -> str:
        """Name of the recipe of the plan, or of all plans."""
        return " + ".join((self.plan.recipe, *(other.recipe for other in self.members)))

    def mirror_axes(self, *, mirror: bool) -> tuple[int, ...]:
        """Return the patch axes to average flips over; those of the first plan.

        Raises:
            UsageError: Mirroring is asked for, and no plan names axes.
        """
        if mirror and not any(each.plan.inference.mirror_axes for each in (self, *self.members)):
            raise UsageError(
                "mirroring is asked for, but the plan names no axes to mirror (inference.mirror_axes); leave it out"
            )
        return self.plan.inference.mirror_axes if mirror else ()

    def num_members(self, *, mirror: bool) -> int:
        """Return how many predictions are averaged: every network's of every flip."""
        self.mirror_axes(mirror=mirror)
        return sum(each._num_own_members(mirror=mirror) for each in (self, *self.members))

    def _num_own_members(self, *, mirror: bool) -> int:
        """Return how many predictions the networks of the first plan make."""
        return len(self._members) * 2 ** (len(self.plan.inference.mirror_axes) if mirror else 0)

    @property
    def _members(self) -> list[Network]:
        """The networks of an ensemble, or the only one."""
        if isinstance(self.network, LogitEnsemble):
            return list(self.network.networks)
        return [self._run]

    def predict(
        self,
        source: Source,
        *,
        mirror: bool = False,
        probabilities: bool = False,
        uncertainty: bool = False,
        spacing: Sequence[float] | None = None,
        progress: ProgressCallback = ignore_progress,
    ) -> Prediction:
        """Segment one image.

        Args:
            source: The file of an image; its files, one for each channel; an image that was read; or an array
                (channel, z, y, x) or (channel, y, x), the channel left out where there is one.
            mirror: Average over flips along the plan's `inference.mirror_axes`.
            probabilities: Return the probabilities too.
            uncertainty: Return the entropy too, and where there are several the disagreement of flips and networks.
            spacing: Millimetres per voxel of an array along its spatial axes.
            progress: Told of the network's passes.

        Raises:
            InputError: The image cannot be read, or is not what the plan expects.
            UsageError: The arguments do not go together.
            ScansegError: The device's memory does not suffice, or the logits are not finite.
        """
        prepared = self.prepare(source, spacing=spacing)
        return self.predict_prepared(
            prepared, mirror=mirror, probabilities=probabilities, uncertainty=uncertainty, progress=progress
        )

    def prepare(self, source: Source, *, spacing: Sequence[float] | None = None) -> PreparedImage:
        """Read and preprocess an image; needs no device. See `predict`."""
        image = open_source(source, self.plan, spacing=spacing)
        if isinstance(source, np.ndarray):
            others = [other.prepare(source, spacing=spacing) for other in self.members]
        else:
            others = [other.prepare(image) for other in self.members]
        try:
            array, geometry = preprocess_image(image, self.plan.preprocessing)
        except InputError as error:
            raise InputError(f"{describe(source)}: {error}") from error
        except MemoryError as error:
            raise ScansegError(
                f"{describe(source)}: the memory of the host does not suffice to preprocess {image.array.nbytes} bytes "
                f"({error})"
            ) from error
        return PreparedImage(image, array, geometry, tuple(others))

    def predict_prepared(
        self,
        prepared: PreparedImage,
        *,
        mirror: bool = False,
        probabilities: bool = False,
        uncertainty: bool = False,
        progress: ProgressCallback = ignore_progress,
    ) -> Prediction:
        """Segment an image that was prepared. See `predict`."""
        if self.members:
            restored = self._segment_together(
                prepared,
                mirror=mirror,
                probabilities=probabilities,
                uncertainty=uncertainty,
                progress=progress,
            )
        else:
            restored = self._segment(
                prepared.array,
                prepared.geometry,
                predicted=self._first_stage(prepared, mirror=mirror, progress=progress),
                mirror=mirror,
                probabilities=probabilities,
                uncertainty=uncertainty,
                progress=progress,
            )
        label_map = postprocess(restored.label_map, self.postprocessing, labels=self.plan.dataset.foreground)
        return Prediction(
            label_map, restored.probabilities, restored.entropy, restored.disagreement, prepared.image
        )

    def predict_preprocessed(
        self,
        image: Float32[np.ndarray, "channel z y x"],
        geometry: CaseGeometry,
        *,
        predicted: UInt8[np.ndarray, "z y x"] | None = None,
        mirror: bool = False,
        progress: ProgressCallback = ignore_progress,
    ) -> UInt8[np.ndarray, "*source"]:
        """Segment an image that a store holds, without any image library; by the networks of the first plan alone.

        Args:
            image: The image on the network's grid.
            geometry: Where it lies.
            predicted: What the first stage of a cascade predicted, on the network's grid.
            mirror: Average over flips along the plan's `inference.mirror_axes`.
            progress: Told of the network's passes.

        Returns:
            Label map on the source's grid.
        """
        return self._segment(image, geometry, predicted=predicted, mirror=mirror, progress=progress).label_map

    def predict_folder(
        self,
        source: str | Path | Sequence[str | Path],
        output: str | Path,
        *,
        mirror: bool = False,
        probabilities: bool = False,
        uncertainty: bool = False,
        overwrite: bool = False,
        skip_existing: bool = False,
        progress: ProgressCallback = ignore_progress,
    ) -> PredictionRecord:
        """Segment every case of a folder; see `scanseg.inference.predict_folder`."""
        sources = [source] if isinstance(source, str | Path) else source
        return predict_folder(
            self,
            [Path(each) for each in sources],
            output=Path(output),
            mirror=mirror,
            probabilities=probabilities,
            uncertainty=uncertainty,
            overwrite=overwrite,
            skip_existing=skip_existing,
            progress=progress,
        )

    def _segment(
        self,
        array: Float32[np.ndarray, "channel z y x"],
        geometry: CaseGeometry,
        *,
        predicted: UInt8[np.ndarray, "z y x"] | None,
        mirror: bool,
        probabilities: bool = False,
        uncertainty: bool = False,
        progress: ProgressCallback,
    ) -> Restored:
        """Return the label map on the source's grid, and what else is wanted."""
        settings, dataset = self.plan.inference, self.plan.dataset
        order = dataset.regions_class_order if dataset.has_regions else None
        by_labels = settings.mode == "slices" and settings.slice_resampling == "labels"
        with self.explained_memory(array.shape[1:]):
            view = self.view(
                array,
                geometry,
                predicted=predicted,
                mirror=mirror,
                uncertainty=uncertainty,
                progress=progress,
            )
            slabs = [slab.clone() for slab in view.slabs] if by_labels else view.slabs
            restored = restore(
                slabs,
                geometry,
                num_outputs=dataset.num_outputs,
                separate_z=view.separate_z,
                regions_class_order=order,
                device=self.device,
                probabilities=probabilities,
                entropy=uncertainty,
            )
            if by_labels:
                label_map = resize_labels(
                    slabs, geometry, num_outputs=dataset.num_outputs, regions_class_order=order
                )
                restored = replace(restored, label_map=label_map)
        return restored

    def _segment_together(
        self,
        prepared: PreparedImage,
        *,
        mirror: bool,
        probabilities: bool,
        uncertainty: bool,
        progress: ProgressCallback,
    ) -> Restored:
        """Return what the networks of all plans make of an image; see `_segment`."""
        dataset, parts = self.plan.dataset, [prepared, *prepared.members]
        self.mirror_axes(mirror=mirror)
        with self.explained_memory(prepared.array.shape[1:]):
            views = [
                each.view(
                    part.array,
                    part.geometry,
                    predicted=each._first_stage(part, mirror=mirror, progress=progress),
                    mirror=mirror and bool(each.plan.inference.mirror_axes),
                    uncertainty=uncertainty,
                    progress=hear,
                )
                for each, part, hear in zip(
                    (self, *self.members), parts, share_progress(progress, len(parts)), strict=True
                )
            ]
            return restore_mean(
                views,
                num_outputs=dataset.num_outputs,
                regions_class_order=dataset.regions_class_order if dataset.has_regions else None,
                device=self.device,
                probabilities=probabilities,
                uncertainty=uncertainty,
            )

    def _first_stage(
        self, prepared: PreparedImage, *, mirror: bool, progress: ProgressCallback
    ) -> UInt8[np.ndarray, "z y x"] | None:
        """Return what the first stage of a cascade predicts, on the network's grid; None where there is none."""
        if self.plan.cascade is None or self.first_stage is None:
            return None
        first = self.first_stage.predict(prepared.image, mirror=mirror, progress=progress).label_map
        return to_grid(first, prepared.geometry, self.plan.preprocessing)

    def view(
        self,
        array: Float32[np.ndarray, "channel z y x"],
        geometry: CaseGeometry,
        *,
        predicted: UInt8[np.ndarray, "z y x"] | None,
        mirror: bool,
        uncertainty: bool = False,
        progress: ProgressCallback = ignore_progress,
    ) -> PlanPrediction:
        """Return what the networks of the first plan say of an image, to be computed slab by slab.

        Args:
            array: The image on the network's grid.
            geometry: Where it lies.
            predicted: What the first stage of a cascade predicted, on that grid.
            mirror: Average over flips along the plan's `inference.mirror_axes`.
            uncertainty: Measure how much flips and networks disagree, where there are several.
            progress: Told of the network's passes.

        Raises:
            UsageError: The plan is the second stage of a cascade, and what the first predicted is missing.
        """
        settings = self.plan.inference
        with_disagreement = uncertainty and self._num_own_members(mirror=mirror) > 1
        networks = self._members if with_disagreement else [self._run]
        windowing = SlidingWindow(
            patch_size=self.plan.sampling.patch_size,
            num_outputs=self.plan.dataset.num_outputs,
            overlap=settings.overlap,
            window_batch=settings.window_batch,
            mirror_axes=self.mirror_axes(mirror=mirror),
            autocast_dtype=self._autocast_dtype,
            disagreement=with_disagreement,
            regions=self.plan.dataset.has_regions,
            background_value=self.plan.preprocessing.background_value,
        )
        image = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
        if self.plan.cascade is not None:
            if predicted is None:
                raise UsageError(
                    "the model is the second stage of a cascade; it needs what the first one predicted"
                )
            image = torch.cat((image, torch.from_numpy(predicted)[None].float()))
            networks = [_of_labels(network, self.plan.dataset.label_values) for network in networks]
        slabs = predict_slabs(networks, image, windowing, device=self.device, progress=progress)
        return PlanPrediction(
            slabs, geometry, separates_z(geometry, self.plan.preprocessing), windowing.num_channels
        )

    @contextmanager
    def explained_memory(self, shape: tuple[int, ...]) -> Iterator[None]:
        """Say what to do where the device's memory does not suffice.

        Args:
            shape: Voxels of the image on the network's grid.

        Raises:
            ScansegError: It does not.
        """
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            raise ScansegError(
                f"the memory of {self.device} does not suffice for an image of {shape} voxels on the network's grid; "
                f"use another device, or a plan with fewer windows at a time (inference.window_batch, now "
                f"{self.plan.inference.window_batch})"
            ) from error


def _of_labels(network: Network, values: tuple[int, ...]) -> Network:
    """Return a network that sees labels as the last channel of windows, and gives each its channel."""

    def run(windows: Tensor) -> Tensor:
        return network(torch.cat((windows[:, :-1], one_hot(windows[:, -1], values)), dim=1))

    return run
