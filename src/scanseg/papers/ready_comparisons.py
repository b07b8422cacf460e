"""Comparisons that come with the package."""

from importlib import resources
from pathlib import Path

from scanseg.errors import UsageError
from scanseg.specs import ComparisonSpec

_READY = "ready"


def ready_comparisons() -> dict[str, ComparisonSpec]:
    """Return the studies that come with the package, by name."""
    folder = resources.files(__package__).joinpath(_READY)
    files = sorted((entry.name, entry) for entry in folder.iterdir() if entry.name.endswith(".json"))
    return {
        name.removesuffix(".json"): ComparisonSpec.model_validate_json(entry.read_text(encoding="utf-8"))
        for name, entry in files
    }


def find_comparison(study: str) -> ComparisonSpec:
    """Read a study from a file, or return one that comes with the package.

    Args:
        study: Path of a JSON file, or a name.

    Raises:
        InputError: The file describes no study.
        UsageError: There is no such file and no such name.
    """
    if Path(study).is_file():
        return ComparisonSpec.read(Path(study))
    ready = ready_comparisons()
    if study not in ready:
        raise UsageError(f"study {study!r} is neither a file nor one of {', '.join(ready)}")
    return ready[study]
