"""Ready comparisons of the package."""

from importlib import resources
from pathlib import Path

from scanseg.errors import UsageError
from scanseg.specs import ComparisonSpec

_READY = "ready"


def ready_comparisons() -> dict[str, ComparisonSpec]:
    """Return the ready comparisons by name."""
    folder = resources.files(__package__).joinpath(_READY)
    files = sorted((entry.name, entry) for entry in folder.iterdir() if entry.name.endswith(".json"))
    return {
        name.removesuffix(".json"): ComparisonSpec.model_validate_json(entry.read_text(encoding="utf-8"))
        for name, entry in files
    }


def find_comparison(name: str) -> ComparisonSpec:
    """Read a comparison from a file, or return a ready one.

    Args:
        name: Path of a JSON file, or the name of a ready comparison.

    Raises:
        InputError: The file is not a comparison.
        UsageError: The name is neither a file nor a ready comparison.
    """
    if Path(name).is_file():
        return ComparisonSpec.read(Path(name))
    ready = ready_comparisons()
    if name not in ready:
        raise UsageError(f"comparison: expected a file or one of {', '.join(ready)}, got {name!r}")
    return ready[name]
