"""Models by name: in the package, or fetched before."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scanseg.errors import InputError
from scanseg.messages import listed
from scanseg.models import ModelFolder, is_ensemble
from scanseg.pretrained.card import CARD_FILE
from scanseg.pretrained.fetching import fetch, is_address
from scanseg.runtime import cache_folder

_SHIPPED = Path(__file__).parent / "shipped"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class NamedModel:
    """A model that predicts by its name or address."""

    name: str
    """Name, or address it was fetched from."""
    path: Path
    """Model folder."""
    place: Literal["package", "cache"]
    """`package`: part of scanseg. `cache`: fetched before."""
    summary: str
    """First sentence of its card."""
    num_bytes: int
    """Size of its files."""


def fetched_folder() -> Path:
    """Return the folder of fetched models, which may be missing."""
    return cache_folder() / "models"


def list_models() -> list[NamedModel]:
    """List the models of the package and the fetched ones."""
    shipped = [_describe(path, path.name, "package") for path in _model_folders(_SHIPPED)]
    fetched = []
    for path in _model_folders(fetched_folder()):
        source = path.with_name(f"{path.name}.source")
        name = source.read_text(encoding="utf-8").strip() if source.is_file() else path.name
        fetched.append(_describe(path, name, "cache"))
    return [*shipped, *sorted(fetched, key=lambda model: model.name)]


def find_model(source: str | os.PathLike[str]) -> Path:
    """Find a model by folder, name or address.

    Args:
        source: A folder, a name or an address:

            - a folder: a model folder, or a folder of a cross-validation;
            - a name of `list_models`, unless a folder of this name exists;
            - `https://HOST/MODEL.zip#sha256=CHECKSUM`: an archive of `save_model`, which is fetched once and checked;
            - `hf:OWNER/REPOSITORY`, optionally with `@REVISION`: a repository of Hugging Face's hub.

    Returns:
        The folder of the model.

    Raises:
        InputError: No folder and no model has this name, the archive is damaged or has another checksum, or the
            address cannot be read.
        UsageError: The address has no checksum, or a package is missing that fetches it.
    """
    text = str(source)
    if is_address(text):
        return fetch(text, fetched_folder())
    path = Path(source)
    if path.exists() or (isinstance(source, Path) and len(path.parts) > 1) or not _NAME.fullmatch(text):
        return path
    models = {model.name: model.path for model in list_models() if model.place == "package"}
    if text in models:
        return models[text]
    known = f"The models by name are {listed(sorted(models))}." if models else "No model has a name."
    raise InputError(f"{text}: no such folder and no model of this name. Give a model folder. {known}")


def _model_folders(folder: Path) -> list[Path]:
    """List the model folders in a folder, sorted by name."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if ModelFolder.exists(path) or is_ensemble(path))


def _describe(path: Path, name: str, place: Literal["package", "cache"]) -> NamedModel:
    card = path / CARD_FILE
    lines = card.read_text(encoding="utf-8").splitlines() if card.is_file() else []
    summary = next((line for line in lines if line and not line.startswith("#")), "")
    num_bytes = sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return NamedModel(name, path, place, summary, num_bytes)
