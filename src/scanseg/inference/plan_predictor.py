"""Prediction by the networks of one plan."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import nn

from scanseg.errors import ScansegError
from scanseg.inference.cascade import append_labels, split_labels
from scanseg.inference.cuda_graph import CudaGraphNetwork
from scanseg.inference.input_checks import growth_hint
from scanseg.inference.prediction import PlanPrediction
from scanseg.inference.resample import SourceMaps, resample_labels_to_source, resample_to_source
from scanseg.inference.uncertainty import Network
from scanseg.inference.windows import SlidingWindow, predict_slabs
from scanseg.models import LogitEnsemble
from scanseg.networks import place_network
from scanseg.preprocessing import separates_z
from scanseg.progress import ProgressCallback
from scanseg.runtime import Precision, autocast_dtype, lacks_memory, memory_for
from scanseg.specs import CaseGeometry, Plan


class PlanPredictor:
    """Networks of one plan on their device."""

    def __init__(
        self,
        plan: Plan,
        network: nn.Module,
        *,
        device: torch.device,
        precision: Precision | None = None,
        cuda_graph: bool = True,
    ) -> None:
        """Move a network to a device and set it to evaluation.

        Args:
            plan: Plan of the network.
            network: One network, or a `LogitEnsemble` of several.
            device: Device of the computation.
            precision: Precision of products. `None`: that of the plan's training.
            cuda_graph: Replay passes as a CUDA graph on a GPU with CUDA.

        Raises:
            UsageError: The device does not support the precision.
            ScansegError: The network does not fit into memory.
        """
        self.plan = plan
        self.device = device
        self._autocast_dtype = autocast_dtype(device, precision or plan.training.precision)
        with memory_for("the network", device=device):
            self.network = place_network(network, device).eval()
        replayed = cuda_graph and device.type == "cuda"
        self._forward: Network = CudaGraphNetwork(self.network) if replayed else self.network

    @property
    def precision(self) -> str:
        """Type of the network's products, such as `bfloat16`."""
        return str(self._autocast_dtype or torch.float32).removeprefix("torch.")

    def num_members(self, *, mirror: bool) -> int:
        """Return the number of averaged predictions: one per network and flip.

        Args:
            mirror: Average over flips along the plan's `inference.mirror_axes`.
        """
        return len(self._member_networks) * 2 ** (len(self.plan.inference.mirror_axes) if mirror else 0)

    @property
    def _member_networks(self) -> list[Network]:
        """Networks of an ensemble, or the only one."""
        if isinstance(self.network, LogitEnsemble):
            return list(self.network.networks)
        return [self._forward]

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
        networks = self._member_networks if with_disagreement else [self._forward]
        sliding_window = SlidingWindow(
            patch_size=self.plan.sampling.patch_size,
            num_outputs=self.plan.dataset.num_outputs,
            overlap=settings.overlap,
            window_batch=settings.window_batch,
            mirror_axes=settings.mirror_axes if mirror else (),
            autocast_dtype=self._autocast_dtype,
            disagreement=with_disagreement,
            regions=self.plan.dataset.has_regions,
            background_value=self.plan.preprocessing.background_value,
        )
        image = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
        if self.plan.cascade is not None:
            image = append_labels(image, predicted)
            networks = [split_labels(network, self.plan.dataset.label_values) for network in networks]
        slabs = predict_slabs(networks, image, sliding_window, device=self.device, progress=progress)
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
            slabs = [slab.clone() for slab in prediction.slabs] if by_labels else prediction.slabs
            maps = resample_to_source(
                slabs,
                geometry,
                num_outputs=dataset.num_outputs,
                separate_z=prediction.separate_z,
                regions_class_order=order,
                device=self.device,
                probabilities=probabilities,
                entropy=uncertainty,
            )
            if by_labels:
                label_map = resample_labels_to_source(
                    slabs, geometry, num_outputs=dataset.num_outputs, regions_class_order=order
                )
                maps = replace(maps, label_map=label_map)
        return maps

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
            if not lacks_memory(error):
                raise
            raise ScansegError(
                f"not enough memory on {self.device} for an image of {geometry.shape} voxels on the network's grid."
                f"{growth_hint(geometry)} Use another device, or a plan with fewer windows per pass "
                f"(inference.window_batch, now {self.plan.inference.window_batch})."
            ) from error
