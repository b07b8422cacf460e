"""Digests of the files that a run leaves."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import SimpleITK
from PIL import Image
from safetensors.numpy import load_file

from same_results_data import ENDINGS
from same_results_runs import Run


def read_results(run: Run, folder: Path) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Read the results of a run.

    Returns:
        Digest of each item, and for each weights file the digest of each tensor.

    Raises:
        LookupError: The run wrote no weights or no predictions.
    """
    model, predictions, ending = folder / "model", folder / "predictions", ENDINGS[run.dataset]
    items = {
        "decimal numbers of the plan": digest_numbers(model.rglob("plan.json")),
        "preprocessed cases": digest_unordered(map(read_array, (folder / "stores").rglob("*.b2nd"))),
        "losses, learning rates, Dice": digest_numbers(model.rglob("metrics.jsonl")),
        "validation label maps": digest_unordered(map(read_array, model.rglob("*.b2nd"))),
        "validation scores": digest_numbers(model.rglob("validation*.json")),
        "scores of the cross-validation": digest_numbers(model.glob("crossval.json")),
        "optimizer state": digest_unordered(
            array_bytes(tensor)
            for path in model.rglob("optimizer.safetensors")
            for tensor in load_file(path).values()
        ),
        "predicted voxels": digest(*map(read_voxels, sorted(predictions.glob(f"case_*{ending}")))),
        "probabilities": digest_unordered(
            array_bytes(array) for path in predictions.rglob("*.npz") for array in np.load(path).values()
        ),
        "uncertainty maps": digest_unordered(map(read_voxels, predictions.glob(f"*/case_*{ending}"))),
        "evaluation": digest_numbers([folder / "report.json"]),
    }
    tensors = {}
    known_folder = re.compile(rf"fold_\d+|{'|'.join(map(re.escape, run.recipes))}")
    for path in sorted(model.rglob("*.safetensors")):
        place = path.relative_to(model)
        if not all(known_folder.fullmatch(part) for part in place.parent.parts):
            continue  # a checkpoint, or a copy of a first stage
        name, arrays = place.with_suffix("").as_posix(), load_file(path)
        tensors[name] = {key: digest(array_bytes(arrays[key])) for key in sorted(arrays)}
        items[f"weights {name}"] = digest(
            *(f"{key} {value}".encode() for key, value in tensors[name].items())
        )
        items[f"weights {name}, any names"] = digest_unordered(
            value.encode() for value in tensors[name].values()
        )
        items[f"weights {name}, file"] = digest(path.read_bytes())
    if not tensors or not list(predictions.glob(f"case_*{ending}")):
        raise LookupError("no weights or no predictions were written")
    return {name: value for name, value in items.items() if value != digest()}, tensors


def same_weights(model: Path, other: Path) -> bool:
    """Return whether two model folders export bit-identical weights."""
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (model, other))
    return ours.keys() == theirs.keys() and all(
        array_bytes(ours[name]) == array_bytes(theirs[name]) for name in ours
    )


def read_array(path: Path) -> bytes:
    """Return the values of a compressed array."""
    return array_bytes(blosc2.open(str(path))[:])


def array_bytes(array: np.ndarray) -> bytes:
    """Return an array's shape, type and values."""
    return f"{array.shape} {array.dtype.str} ".encode() + np.ascontiguousarray(array).tobytes()


def digest(*parts: bytes) -> str:
    """Return one SHA-256 of several parts in their order."""
    return hashlib.sha256("".join(hashlib.sha256(part).hexdigest() for part in parts).encode()).hexdigest()


def digest_unordered(parts: Iterable[bytes]) -> str:
    """Return one SHA-256 of several parts in any order."""
    return digest(*sorted(hashlib.sha256(part).digest() for part in parts))


def digest_data(folder: Path) -> str:
    """Return the digest of all data sets: voxels and descriptions."""
    files = sorted(path for name in ENDINGS for path in (folder / name).rglob("*") if path.is_file())
    return digest(*(path.read_bytes() if path.suffix == ".json" else read_voxels(path) for path in files))


def digest_numbers(paths: Iterable[Path]) -> str:
    """Return the digest of all decimal numbers in JSON files.

    Keys and order do not count, and times are left out.
    """
    lines = [line for path in paths for line in json_documents(path)]
    return digest_unordered(repr(number).encode() for line in lines for number in decimals(json.loads(line)))


def json_documents(path: Path) -> Sequence[str]:
    """Return the documents of a JSON file, or lines of `.jsonl`."""
    text = path.read_text(encoding="utf-8")
    return text.splitlines() if path.suffix == ".jsonl" else [text]


def decimals(value: Any) -> Iterator[float]:
    """Give the decimal numbers in a document, without seconds."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, list):
        for entry in value:
            yield from decimals(entry)
    elif isinstance(value, dict):
        for key, entry in value.items():
            if "seconds" not in key:
                yield from decimals(entry)


def read_voxels(path: Path) -> bytes:
    """Return the voxels of an image file, with its shape and grid."""
    if path.suffix == ".png":
        return array_bytes(np.asarray(Image.open(path)))
    image = SimpleITK.ReadImage(str(path))
    grid = repr((image.GetSpacing(), image.GetOrigin(), image.GetDirection()))
    return array_bytes(SimpleITK.GetArrayFromImage(image)) + grid.encode()
