"""Label values of a folder: forms in files, and numbers after conversion."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Integer, Shaped

from scanseg.converters.label_table import Colour, LabelKey, LabelTable, describe_key
from scanseg.errors import InputError
from scanseg.imaging import (
    LOSSY_ENDINGS,
    Image,
    file_ending,
    read_image,
    read_palette,
    read_stored_values,
)
from scanseg.messages import counted, listed
from scanseg.specs import BACKGROUND

LabelForm = Literal["values", "mask", "colours", "structures"]
"""Form of label files: numbers, masks of 0 and 255, colours, or one mask per structure."""
FOREGROUND = "foreground"
"""Name of the label of masks."""

_MOST_FOUND = 64
"""Largest number of values or colours that become labels without a table."""
_MOST_LABELS = 254
_BLENDED = 32
"""Number of values from which a picture may be a mask with blended edges."""
_NEAR = 50
"""Largest difference from 0 or 255 that counts as one of them."""
_HIGHEST_COUNTED = 65535
"""Highest number that is counted by a table."""
_LARGEST_TABLE = 2**24
"""Highest number, colours included, that is replaced by a table."""
_PIECE = 1 << 22
"""Voxels counted at a time."""
_BLACK: Colour = (0, 0, 0)


@dataclass(frozen=True)
class LabelCode:
    """The label value of each value, colour or structure of the source."""

    form: LabelForm
    names: Mapping[str, int]
    """Label value of each name in the data set, from 1."""
    keys: Mapping[LabelKey, int]
    """Label value of each value or colour of the files, with the background. Empty for structures."""
    notes: tuple[str, ...] = ()

    @property
    def colours(self) -> dict[str, str]:
        """Colour of each label of colour masks, as `#rrggbb` by name. Empty for other forms."""
        names = {value: name for name, value in self.names.items()}
        return {
            names[value]: describe_key(key)
            for key, value in self.keys.items()
            if value and not isinstance(key, int)
        }

    def encode(self, path: Path, values: Shaped[np.ndarray, "*spatial"]) -> Integer[np.ndarray, "*spatial"]:
        """Return the label values of a file's numbers.

        Args:
            path: The file, for messages.
            values: Values, or packed colours.

        Raises:
            InputError: A value or colour is no label.
        """
        found, _ = count_numbers(values)
        keys = [_unpacked(int(value)) if self.form == "colours" else int(value) for value in found]
        unknown = [describe_key(key) for key in keys if key not in self.keys]
        if unknown:
            kind = "colour" if self.form == "colours" else "value"
            known = listed([describe_key(key) for key in self.keys])
            raise InputError(
                f"{path}: expected the {kind}s {known}, got {listed(unknown)} too. Name all of them by --labels."
            )
        numbers = np.array([self.keys[key] for key in keys], np.uint8)
        if found[-1] >= _LARGEST_TABLE:
            return numbers[np.searchsorted(found, values)]
        table = np.zeros(int(found[-1]) + 1, np.uint8)
        table[found] = numbers
        return table[values]


def read_label_numbers(path: Path, *, as_colours: bool) -> tuple[Image, bool]:
    """Read a label file as one number per voxel.

    Args:
        path: The file.
        as_colours: Return colours, packed into one number. Grey values are colours too.

    Returns:
        Values, or packed colours, of shape (1, *spatial), and whether they are colours. A mask with blended edges has
        the values 0 and 255.

    Raises:
        InputError: The file cannot be read, its channels are no colours, or its values are not whole.
    """
    image = read_image(path) if as_colours else read_stored_values(path)
    array = image.array
    if not as_colours:
        _check_palette(path, array)
    if array.dtype.kind == "f":
        if not (array == np.rint(array)).all():
            raise InputError(f"{path}: expected whole numbers, got fractions. Save labels as integers.")
        array = array.astype(np.int64)
    if image.num_channels > 1 and (as_colours or (array != array[:1]).any()):
        return _with(image, _packed(path, array)), True
    array = array[:1]
    if array.min() < 0:
        raise InputError(f"{path}: expected values from 0, got {array.min()}. Renumber the labels.")
    if _is_picture(path):
        array = _sharpened(path, array)
    return _with(image, array.astype(np.int32) * 0x010101 if as_colours else array), as_colours


def _check_palette(path: Path, array: np.ndarray) -> None:
    """Refuse a palette whose background is not its first colour.

    Programs that reduce a colour mask to a palette may put its colours in any order, a different one in each file.

    Raises:
        InputError: The first colour is not black, and black is another colour of the palette in use.
    """
    palette = read_palette(path)
    if palette is None or palette[0] == _BLACK:
        return
    used, _ = count_numbers(array)
    colours = {int(index): palette[index] for index in used if index < len(palette)}
    black = next((index for index, colour in colours.items() if colour == _BLACK), None)
    if black is None:
        return
    names = ",".join(f"NAME={describe_key(colour)}" for colour in colours.values() if colour != _BLACK)
    raise InputError(
        f"{path}: expected black, the background, as number 0 of the palette, got it as number {black}. Name the "
        f"colours by --labels, such as {names}, or save the mask as RGB."
    )


def _with(image: Image, array: np.ndarray) -> Image:
    return Image(array, image.spacing, image.origin, image.direction, image.header, image.warnings)


def _is_picture(path: Path) -> bool:
    return file_ending(path) in (*LOSSY_ENDINGS, ".png", ".bmp")


def _packed(path: Path, array: np.ndarray) -> np.ndarray:
    """Return three channels of 8 bits as one number."""
    if len(array) != 3 or array.max() > 255 or array.min() < 0:
        raise InputError(
            f"{path}: expected one number or a colour of 8 bits per voxel, got {counted(len(array), 'channel')} that "
            f"differ, with values from {array.min()} to {array.max()}. Save one integer per voxel."
        )
    if file_ending(path) in LOSSY_ENDINGS:
        raise InputError(f"{path}: JPEG changes colours and cannot hold a label map. Save it as PNG.")
    red, green, blue = array.astype(np.int32)[:, np.newaxis]
    return (red << 16) | (green << 8) | blue


def _unpacked(value: int) -> Colour:
    return (value >> 16, value >> 8 & 255, value & 255)


def _sharpened(path: Path, array: np.ndarray) -> np.ndarray:
    """Replace the blended edges of a mask by 0 and 255.

    JPEG makes such edges.

    Raises:
        InputError: A JPEG file is not such a mask.
    """
    is_lossy = file_ending(path) in LOSSY_ENDINGS
    if not is_lossy and len(np.unique(array)) <= _BLENDED:
        return array
    between = (array > _NEAR) & (array < 255 - _NEAR)
    if array.max() <= 255 and between.mean() <= 1 / 50 and (is_lossy or (array >= 255 - _NEAR).any()):
        if 0 < array.max() <= _NEAR:
            raise InputError(f"{path}: JPEG changes values and cannot hold a label map. Save it as PNG.")
        return np.where(array > 127, np.uint8(255), np.uint8(0))
    if is_lossy:
        raise InputError(f"{path}: JPEG changes values and cannot hold a label map. Save it as PNG.")
    return array


def count_keys(path: Path, *, as_colours: bool) -> Counter[LabelKey]:
    """Count the voxels of each value or colour of a label file.

    Args:
        path: The file.
        as_colours: Count colours, also if all are grey.

    Raises:
        InputError: As for `read_label_numbers`.
    """
    image, is_colour = read_label_numbers(path, as_colours=as_colours)
    values, counts = count_numbers(image.array)
    keys = (_unpacked(int(value)) if is_colour else int(value) for value in values)
    return Counter(dict(zip(keys, map(int, counts), strict=True)))


def count_numbers(values: Integer[np.ndarray, "..."]) -> tuple[np.ndarray, np.ndarray]:
    """Count the different numbers of an array, in ascending order.

    Small numbers are counted piece by piece, which bounds time and memory.

    Args:
        values: Numbers from 0.
    """
    flat = values.reshape(-1)
    if flat.max(initial=0) > _HIGHEST_COUNTED:
        return np.unique(flat, return_counts=True)
    pieces = (flat[start : start + _PIECE] for start in range(0, len(flat), _PIECE))
    size = int(flat.max(initial=0)) + 1
    counts = sum((np.bincount(piece, minlength=size) for piece in pieces), np.zeros(size, np.int64))
    found = np.flatnonzero(counts)
    return found, counts[found]


def choose_code(found: Mapping[Path, Counter[LabelKey]], table: LabelTable | None) -> LabelCode:
    """Choose a label for each value or colour of all files.

    Args:
        found: Voxels of each value or colour, by file.
        table: Value or colour of each name. `None`: all values found become labels.

    Raises:
        InputError: The files have different forms, too many values, or do not fit the table.
    """
    keys = Counter[LabelKey]()
    for counts in found.values():
        keys.update(counts)
    if table is not None:
        return _code_of_table(found, keys, table)
    colours = {key for key in keys if not isinstance(key, int)}
    if colours:
        keys = Counter({_as_colour(key): count for key, count in keys.items()})
        return _code_of_found("colours", [key for key in sorted(keys, key=str) if key != _BLACK])
    masks = [path for path, counts in found.items() if counts.keys() <= {0, 255} and counts[255]]
    ones = [path for path, counts in found.items() if counts.keys() <= {0, 1} and counts[1]]
    if keys.keys() <= {0, 255} and masks:
        return LabelCode("mask", {FOREGROUND: 1}, {0: 0, 255: 1})
    if masks and ones and len(masks) + len(ones) + _count_empty(found) == len(found):
        raise InputError(
            f"expected one form of masks, got 0 and 255 in {masks[0].name} and 0 and 1 in {ones[0].name}. Save all "
            "with one form, or name the values by --labels."
        )
    return _code_of_found("values", sorted(key for key in keys if isinstance(key, int) and key))


def _count_empty(found: Mapping[Path, Counter[LabelKey]]) -> int:
    return sum(counts.keys() <= {0} for counts in found.values())


def _as_colour(key: LabelKey) -> Colour:
    return (key, key, key) if isinstance(key, int) else key


def _code_of_found(form: LabelForm, keys: Sequence[LabelKey]) -> LabelCode:
    """Return a code in which every value found is a label."""
    kind = "colours" if form == "colours" else "values"
    if not keys:
        raise InputError("expected label values above 0, got background only. Check the label maps.")
    if len(keys) > _MOST_FOUND:
        advice = (
            "Save label maps without blended edges, or name the colours by --labels FILE."
            if form == "colours"
            else "For a number per instance, use the converter dsb2018 or instances-3d. Otherwise name the values by "
            "--labels FILE."
        )
        raise InputError(f"expected at most {_MOST_FOUND} different {kind}, got {len(keys)}. {advice}")
    prefix = "colour_" if form == "colours" else "label_"
    names = {prefix + describe_key(key).lstrip("#"): number for number, key in enumerate(keys, start=1)}
    background: LabelKey = _BLACK if form == "colours" else 0
    codes = {background: 0, **{key: number for number, key in enumerate(keys, start=1)}}
    changed = form == "values" and list(keys) != list(range(1, len(keys) + 1))
    return LabelCode(form, names, codes, (describe_renumbering(codes),) if changed else ())


def describe_renumbering(codes: Mapping[LabelKey, int]) -> str:
    """Return a note on the new numbers of labels.

    Args:
        codes: Label value of each value or colour.
    """
    pairs = [f"{describe_key(key)} to {number}" for key, number in codes.items() if number]
    return f"labels are renumbered: {listed(pairs)}"


def _code_of_table(
    found: Mapping[Path, Counter[LabelKey]], keys: Counter[LabelKey], table: LabelTable
) -> LabelCode:
    """Return a code with the names of a table."""
    named = {name: key for name, key in table.items() if name.lower() != BACKGROUND}
    background = [key for name, key in table.items() if name.lower() == BACKGROUND]
    are_colours = not isinstance(next(iter(table.values())), int)
    zero: LabelKey = _BLACK if are_colours else 0
    notes = []
    for name in [name for name, key in named.items() if key == zero]:
        if background:
            raise InputError(
                f"label {name}: expected a value other than {describe_key(zero)}, the background."
            )
        notes.append(f"{name} ({describe_key(zero)}) becomes background")
        del named[name]
    if not named or len(named) > _MOST_LABELS:
        raise InputError(f"labels: expected 1 to {_MOST_LABELS} besides the background, got {len(named)}.")
    if not are_colours and any(not isinstance(key, int) for key in keys):
        path = next(path for path, counts in found.items() if any(not isinstance(key, int) for key in counts))
        raise InputError(f"{path}: expected the values of --labels, got colours. Name colours: NAME=#ff0000.")
    if set(named.values()) in ({1}, {255}) and keys.keys() <= {0, 255} and keys[255]:
        return LabelCode("mask", dict.fromkeys(named, 1), {0: 0, 255: 1}, tuple(notes))
    ordered = (
        list(named.items()) if are_colours else sorted(named.items(), key=lambda item: str(item[1]).zfill(10))
    )
    ordered.sort(key=lambda item: item[0] == "ignore")
    names = {name: number for number, (name, _) in enumerate(ordered, start=1)}
    codes = {zero: 0, **dict.fromkeys(background, 0), **{key: names[name] for name, key in ordered}}
    if not are_colours and [key for _, key in ordered] != list(range(1, len(ordered) + 1)):
        notes.append(describe_renumbering(codes))
    return LabelCode("colours" if are_colours else "values", names, codes, tuple(notes))
