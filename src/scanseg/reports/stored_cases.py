"""Images, references and label maps of the validation cases of a model."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from scanseg.errors import InputError
from scanseg.imaging import Image, direction_of, resample_image
from scanseg.inference import load
from scanseg.models import ModelFolder, is_ensemble, member_folders
from scanseg.preprocessing import Store, place_in_source, read_array
from scanseg.specs import CaseGeometry, Plan, Report


def open_store(report: Report, model: Path) -> Store | None:
    """Open the store with the references of a model's scores.

    Args:
        report: Scores of the validation cases.
        model: Folder of the model.

    Returns:
        The store, or `None` if it is missing.
    """
    recorded = Path(report.references)
    for folder in (recorded, model.parent / "scanseg-stores" / recorded.name):
        try:
            return Store.open(folder)
        except InputError:
            continue
    return None


def read_stored_image(store: Store, name: str, plan: Plan) -> Image:
    """Return a preprocessed image on the source grid.

    Args:
        store: Store of the case.
        name: Name of the case.
        plan: Plan of the store, with the orientation of its cases.

    Returns:
        The image. Intensities are normalized, and cropped voxels have the lowest one.
    """
    case = store.case(name)
    geometry = case.geometry
    array = store.read_image(case).astype(np.float32)
    cropped = resample_image(array, geometry.crop_shape, order=1, separate_z=False)
    placed = place_in_source(cropped, geometry, fill=float(cropped.min()))
    if geometry.num_axes == 2:
        return Image(placed, geometry.source_spacing, (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))
    direction = direction_of(_source_codes(geometry, plan) or "LPS")
    return Image(placed, geometry.source_spacing, (0.0, 0.0, 0.0), direction)


def find_label_map(model: Path, store: Store, name: str) -> UInt8[np.ndarray, "*source"] | None:
    """Return the kept label map of a validation case.

    `None`: it was not kept.

    Args:
        model: Model folder, or folder of a cross-validation.
        store: Store of the case.
        name: Name of the case.
    """
    shape = store.case(name).geometry.source_shape
    for folder in member_folders(model):
        path = ModelFolder.open(folder).prediction_path(name)
        if path.is_file():
            return read_array(path, shape=shape)
    return None


class ValidationPredictor:
    """Predicts validation cases by the network that was not trained on them."""

    def __init__(self, model: Path, store: Store, *, device: str) -> None:
        """Name the model.

        Args:
            model: Model folder, or folder of a cross-validation.
            store: Store of the cases.
            device: Device of the prediction.
        """
        self.model, self.store, self.device = model, store, device
        self._predictors: dict[Path, object] = {}

    def predict(self, name: str) -> UInt8[np.ndarray, "*source"]:
        """Return the label map of a validation case.

        Args:
            name: Name of the case.
        """
        from scanseg.inference import Predictor

        folder = self._folder_of(name)
        if folder not in self._predictors:
            self._predictors[folder] = load(folder, device=self.device)
        predictor = self._predictors[folder]
        assert isinstance(predictor, Predictor)
        case = self.store.case(name)
        return predictor.predict_preprocessed(
            self.store.read_image(case).astype(np.float32),
            case.geometry,
            predicted=self.store.read_predicted(case),
            mirror=predictor.plan.training.mirror_validation,
        )

    def _folder_of(self, name: str) -> Path:
        """Return the folder of the network that validated a case."""
        if not is_ensemble(self.model):
            return self.model
        for folder in member_folders(self.model):
            record = ModelFolder.open(folder).read_run()
            if record is not None and name in record.validation_cases:
                return folder
        raise InputError(f"{self.model}: no member has the validation case {name}. Train the folds again.")


def _source_codes(geometry: CaseGeometry, plan: Plan) -> str | None:
    """Return the axis codes of the source of a case.

    `None`: the plan has no orientation.
    """
    orientation = plan.preprocessing.orientation
    if orientation is None:
        return None
    planned = orientation[::-1]  # z, y, x
    codes = [""] * 3
    opposite = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}
    for axis, source, is_flipped in zip(
        plan.preprocessing.axis_order, geometry.axis_order, geometry.flips, strict=True
    ):
        codes[source] = opposite[planned[axis]] if is_flipped else planned[axis]
    return "".join(reversed(codes))
