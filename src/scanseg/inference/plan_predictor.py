"""Prediction by the networks of one plan."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, UInt8

from scanseg.errors import ScansegError
from scanseg.inference.arrays import arrays_of, arrays_on
from scanseg.inference.cascade import append_labels, split_labels
from scanseg.inference.input_checks import growth_hint
from scanseg.inference.networks import Networks
from scanseg.inference.prediction import PlanPrediction
from scanseg.inference.resample import SourceMaps, resample_labels_to_source, resample_to_source
from scanseg.inference.windows import SlidingWindow, predict_slabs
from scanseg.preprocessing import separates_z
from scanseg.progress import ProgressCallback, ignore_progress
from scanseg.specs import CaseGeometry, Plan

_WARM_UPS = 4
"""Passes of a shape until its CUDA graph is captured (`cuda_graph.DIRECT_PASSES` and one)."""


class PlanPredictor:
    """Prediction by networks of one plan."""

    def __init__(
        self, plan: Plan, networks: Networks, *, temperatures: Sequence[float] | None = None
    ) -> None:
        """Combine a plan and its networks.

        Args:
            plan: Plan of the networks.
            networks: Networks on their device.
            temperatures: Temperature of each output. `None`: all are 1.
        """
        self.plan = plan
        self.temperatures = temperatures
        self.networks = networks
        self.device = networks.device

    def num_members(self, *, mirror: bool) -> int:
        """Return the number of averaged predictions: one per network and flip.

        Args:
            mirror: Average over flips along the plan's `inference.mirror_axes`.
        """
        return len(self.networks.members) * 2 ** (len(self.plan.inference.mirror_axes) if mirror else 0)

    def predict(
        self,
        array: Float32[np.ndarray, "channel z y x"],
        geometry: CaseGeometry,
        *,
        predicted: UInt8[np.ndarray, "z y x"] | None,
        mirror: bool,
        uncertainty: bool,
        progress: ProgressCallback,
    ) -> PlanPrediction:
        """Return the logits of an image, computed slab by slab on demand.

        Args:
            array: Image on the network's grid.
            geometry: Geometry of that grid in the source.
            predicted: Labels of the first stage of a cascade on that grid.
            mirror: Average over flips along the plan's `inference.mirror_axes`.
            uncertainty: Add the disagreement of flips and networks if there are several.
            progress: Called with each progress update.

        Raises:
            UsageError: The plan is the second stage of a cascade, and `predicted` is missing.
        """
        settings = self.plan.inference
        with_disagreement = uncertainty and self.num_members(mirror=mirror) > 1
        networks = list(self.networks.members) if with_disagreement else [self.networks.mean]
        sliding_window = SlidingWindow(
            patch_size=self.plan.sampling.patch_size,
            num_outputs=self.plan.dataset.num_outputs,
            overlap=settings.overlap,
            window_batch=settings.window_batch,
            mirror_axes=settings.mirror_axes if mirror else (),
            autocast_dtype=self.networks.autocast_dtype,
            disagreement=with_disagreement,
            regions=self.plan.dataset.has_regions,
            background_value=self.plan.preprocessing.background_value,
            temperatures=None if self.temperatures is None else tuple(self.temperatures),
        )
        image = np.ascontiguousarray(array, dtype=np.float32)
        if self.plan.cascade is not None:
            image = append_labels(image, predicted)
            networks = [split_labels(network, self.plan.dataset.label_values) for network in networks]
        on_host = arrays_on(self.device).on_host().of(image)
        slabs = predict_slabs(networks, on_host, sliding_window, device=self.device, progress=progress)
        return PlanPrediction(
            slabs, geometry, separates_z(geometry, self.plan.preprocessing), sliding_window.num_channels
        )

    def segment(
        self,
        array: Float32[np.ndarray, "channel z y x"],
        geometry: CaseGeometry,
        *,
        predicted: UInt8[np.ndarray, "z y x"] | None,
        mirror: bool,
        probabilities: bool = False,
        uncertainty: bool = False,
        progress: ProgressCallback,
    ) -> SourceMaps:
        """Return the maps of an image on the source grid.

        Args:
            array: Image on the network's grid.
            geometry: Geometry of that grid in the source.
            predicted: Labels of the first stage of a cascade on that grid.
            mirror: Average over flips along the plan's `inference.mirror_axes`.
            probabilities: Return the probabilities too.
            uncertainty: Return the entropy, and the disagreement of flips and networks if there are several.
            progress: Called with each progress update.

        Raises:
            UsageError: The plan is the second stage of a cascade, and `predicted` is missing.
            ScansegError: Memory ran out, or a logit is not finite.
        """
        settings, dataset = self.plan.inference, self.plan.dataset
        order = dataset.regions_class_order if dataset.has_regions else None
        by_labels = settings.mode == "slices" and settings.slice_resampling == "labels"
        with self.explained_memory(geometry):
            prediction = self.predict(
                array,
                geometry,
                predicted=predicted,
                mirror=mirror,
                uncertainty=uncertainty,
                progress=progress,
            )
            if by_labels and not probabilities and not uncertainty:
                label_map = resample_labels_to_source(
                    prediction.slabs, geometry, num_outputs=dataset.num_outputs, regions_class_order=order
                )
                return SourceMaps(label_map, probabilities=None, entropy=None, disagreement=None)
            slabs = (
                [arrays_of(slab).copy(slab) for slab in prediction.slabs] if by_labels else prediction.slabs
            )
            maps = resample_to_source(
                slabs,
                geometry,
                num_outputs=dataset.num_outputs,
                separate_z=prediction.separate_z,
                regions_class_order=order,
                device=self.device,
                probabilities=probabilities,
                entropy=uncertainty,
                temperatures=self.temperatures,
            )
            if by_labels:
                label_map = resample_labels_to_source(
                    slabs, geometry, num_outputs=dataset.num_outputs, regions_class_order=order
                )
                maps = replace(maps, label_map=label_map)
        return maps

    def warm_up(self) -> None:
        """Segment random images of one window and of a full batch.

        Kernels are compiled, libraries choose theirs, and CUDA graphs are captured. This takes seconds on a GPU.

        Raises:
            ScansegError: Memory ran out.
        """
        settings, patch = self.plan.inference, self.plan.sampling.patch_size
        depth, height, width = (1,) * (3 - len(patch)) + tuple(patch)
        step = max(1, int(depth * (1 - settings.overlap)))
        random = np.random.default_rng(0)
        for count in dict.fromkeys((1, settings.window_batch)):
            shape = depth + (count - 1) * step, height, width
            image = random.standard_normal((len(self.plan.dataset.channel_names), *shape), dtype=np.float32)
            geometry = CaseGeometry(
                num_axes=3,
                source_shape=shape,
                source_spacing=(1.0, 1.0, 1.0),
                axis_order=(0, 1, 2),
                crop_start=(0, 0, 0),
                crop_shape=shape,
                shape=shape,
            )
            predicted = None if self.plan.cascade is None else np.zeros(shape, dtype=np.uint8)
            for _ in range(_WARM_UPS):
                self.segment(
                    image, geometry, predicted=predicted, mirror=settings.mirror, progress=ignore_progress
                )

    @contextmanager
    def explained_memory(self, geometry: CaseGeometry) -> Iterator[None]:
        """Explain too little memory for an image, with advice.

        Args:
            geometry: Geometry of the network's grid in the source.

        Raises:
            ScansegError: The block ran out of memory.
        """
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not self.networks.lacks_memory(error):
                raise
            raise ScansegError(
                f"not enough memory on {self.device} for an image of {geometry.shape} voxels on the network's grid."
                f"{growth_hint(geometry)} Use another device, or a plan with fewer windows per pass "
                f"(inference.window_batch, now {self.plan.inference.window_batch})."
            ) from error
