"""Models from an address: an archive, or a repository of a hub."""

import hashlib
import re
import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from scanseg.errors import InputError, UsageError
from scanseg.files import new_folder, write_text
from scanseg.models import ModelFolder, is_ensemble

_HUB = "hf:"
_CHECKSUM = re.compile(r"sha256=([0-9a-fA-F]{64})")
_REPOSITORY = re.compile(r"hf:(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_FILES = ("*.json", "*.safetensors", "README.md")
"""Files of a shared model. Others are not fetched."""
_LARGEST_BYTES = 8 << 30
"""Largest size of the files of an archive after unpacking."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_INSTALL = 'Run: pip install "scanseg[hub]"'


def is_address(source: str) -> bool:
    """Return whether a source is an address.

    Args:
        source: Model given by a user.
    """
    return source.startswith((_HUB, "https://", "http://"))


def fetch(address: str, cache: Path) -> Path:
    """Fetch a model, or find it in the cache.

    Args:
        address: As for `scanseg.pretrained.find_model`.
        cache: Folder of fetched models.

    Returns:
        The folder of the model in the cache.

    Raises:
        InputError: The address cannot be read, the checksum differs, or the archive holds no model.
        UsageError: The address is invalid, or a package is missing.
    """
    if address.startswith(_HUB):
        return _fetch_repository(address, cache)
    url, checksum = _split(address)
    target = cache / checksum[:16]
    if target.is_dir():
        return target
    archive = _download(url, checksum, cache)
    try:
        with new_folder(target) as folder:
            _unpack(archive, folder, url)
    finally:
        archive.unlink(missing_ok=True)
    write_text(target.with_name(f"{target.name}.source"), f"{address}\n")
    return target


def _split(address: str) -> tuple[str, str]:
    """Split an address into its URL and its checksum."""
    url, _, fragment = address.partition("#")
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise UsageError(f"{url}: expected an address that begins with https://")
    match = _CHECKSUM.fullmatch(fragment)
    if match is None:
        raise UsageError(
            f"{address}: expected the checksum of the archive at the end of the address, such as {url}#sha256=0123... "
            "(64 digits). Ask the author of the model for it."
        )
    return url, match[1].lower()


def _download(url: str, checksum: str, cache: Path) -> Path:
    """Download an archive and check it."""
    try:
        import pooch
        import requests
    except ImportError as error:
        raise UsageError(f"{url}: pooch and requests cannot be imported ({error}). {_INSTALL}") from error
    pooch.get_logger().setLevel("WARNING")
    cache.mkdir(parents=True, exist_ok=True)
    try:
        path = pooch.retrieve(
            url,
            known_hash=f"sha256:{checksum}",
            path=cache,
            fname=f"{checksum[:16]}.download",
            progressbar=False,
        )
    except requests.RequestException as error:
        raise InputError(f"{url}: cannot be fetched ({error}). Check the address and the network.") from error
    except ValueError as error:
        raise InputError(
            f"{url}: the archive has another checksum than {checksum}. It was not used."
        ) from error
    return Path(path)


def _unpack(archive: Path, folder: Path, url: str) -> None:
    """Unpack a model, without links and unknown files.

    Raises:
        InputError: The archive is damaged, has such entries, or holds no model.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            entries = [entry for entry in packed.infolist() if not entry.is_dir()]
            faults = [fault for entry in entries if (fault := _fault_of(entry))]
            if sum(entry.file_size for entry in entries) > _LARGEST_BYTES:
                faults.append(f"more than {_LARGEST_BYTES >> 30} GiB after unpacking")
            if faults:
                raise InputError(
                    f"{url}: the archive is no shared model: {'; '.join(faults[:5])}. Nothing was kept."
                )
            for entry in entries:
                target = folder / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(entry) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{url}: the archive is damaged ({error}). Nothing was kept.") from error
    if not (ModelFolder.exists(folder) or is_ensemble(folder)):
        raise InputError(f"{url}: the archive is no shared model: it has no plan.json. Nothing was kept.")


def _fault_of(entry: zipfile.ZipInfo) -> str | None:
    """Return why an entry of an archive is refused, or `None`."""
    path = PurePosixPath(entry.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or ":" in entry.filename:
        return f"{entry.filename!r} lies outside of the model"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return f"{entry.filename!r} is a link"
    if not any(path.match(pattern) for pattern in _FILES):
        return f"{entry.filename!r} is none of {', '.join(_FILES)}"
    return None


def _fetch_repository(address: str, cache: Path) -> Path:
    """Fetch a repository of Hugging Face's hub."""
    match = _REPOSITORY.fullmatch(address)
    if match is None:
        raise UsageError(f"{address}: expected hf:OWNER/REPOSITORY or hf:OWNER/REPOSITORY@REVISION")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise UsageError(f"{address}: huggingface_hub cannot be imported ({error}). {_INSTALL}") from error
    try:
        path = snapshot_download(
            match["name"], revision=match["revision"], allow_patterns=list(_FILES), cache_dir=cache / "hub"
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{address}: cannot be fetched ({reason}). Check the name and the network."
        ) from error
    folder = Path(path)
    if not (ModelFolder.exists(folder) or is_ensemble(folder)):
        raise InputError(f"{address}: the repository is no shared model: it has no plan.json.")
    return folder


def checksum_of(path: Path) -> str:
    """Return the SHA-256 checksum of a file, for its address.

    Args:
        path: Archive of a model.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
