"""`scanseg models` and `scanseg card`: trained models to share."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from scanseg.cli.console import print_line, show_table
from scanseg.cli.options import COMMON


def list_models() -> None:
    """List the models that `scanseg predict` takes by name."""
    from scanseg.pretrained import list_models as list_named

    models = list_named()
    rows = [(model.name, f"{model.num_bytes / 1e6:.1f}", model.place, model.summary) for model in models]
    show_table(("model", "MB", "place", "description"), rows, align="left")


def save(
    model: Path,
    /,
    *,
    output: Annotated[Path, COMMON, Parameter(alias="-o")],
    weight_type: Annotated[Literal["float32", "float16"], COMMON] = "float32",
    about: Annotated[Path | None, COMMON] = None,
) -> None:
    """Save a trained model to share it: plan, weights and card.

    Names of cases, paths and host names are left out.

    Args:
        model: Folder of a model from `scanseg train` or `scanseg crossval`.
        output: Folder to write, or an archive ending in `.zip`. It must not exist.
        weight_type: Number format of the stored weights. `float16` halves their size.
        about: Markdown file with text for the card, such as source and licence of the data. Defaults to none.
    """
    from scanseg.pretrained import checksum_of, save_model

    save_model(model, output, weight_type=weight_type, about=_read(about))
    print_line(f"{output}: {_size_of(output) / 1e6:.1f} MB")
    if output.is_file():
        print_line(f"its address ends in #sha256={checksum_of(output)}")


def fetch(source: str, /) -> None:
    """Fetch a model, so that it predicts without a network later.

    Args:
        source: Address `https://HOST/MODEL.zip#sha256=CHECKSUM`, or `hf:OWNER/REPOSITORY`.
    """
    from scanseg.errors import UsageError
    from scanseg.pretrained import find_model, is_address

    if not is_address(source):
        raise UsageError(f"SOURCE: expected an address (https://... or hf:OWNER/REPOSITORY), got {source!r}")
    print_line(f"{find_model(source)}: fetched")


def card(
    model: str,
    /,
    *,
    output: Annotated[Path | None, COMMON, Parameter(alias="-o")] = None,
    about: Annotated[Path | None, COMMON] = None,
    overwrite: Annotated[bool, COMMON] = False,
) -> None:
    """Write the card of a trained model: use, training, scores and limits.

    Args:
        model: Folder of a model from `scanseg train` or `scanseg crossval`, or name of a model.
        output: Markdown file to write. Defaults to printing the card.
        about: Markdown file with text for the card, such as source and licence of the data. Defaults to none.
        overwrite: Replace the output file if it exists.
    """
    from scanseg.errors import UsageError
    from scanseg.files import write_text
    from scanseg.pretrained import CARD_FILE, find_model, make_card

    path = find_model(model)
    shared = path / CARD_FILE
    text = shared.read_text(encoding="utf-8") if shared.is_file() else make_card(path, about=_read(about))
    if output is None:
        print_line(text)
        return
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists. Choose another file, or replace it by --overwrite.")
    write_text(output, text)
    print_line(f"{output}: card of {model}")


def _read(path: Path | None) -> str | None:
    """Read a text file.

    Raises:
        InputError: The file cannot be read.
    """
    from scanseg.errors import InputError

    try:
        return None if path is None else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _size_of(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
