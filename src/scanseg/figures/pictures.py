"""Pictures of scenes: planes, montages, and films through slices."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from scanseg.errors import InputError, UsageError
from scanseg.figures.rendering import PLANE_NAMES, Look, plane_size, render_plane, sides_of
from scanseg.figures.scene import Scene, choose_slice, find_range
from scanseg.files import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".pdf", ".svg")
"""Endings of files of one picture."""
FILM_ENDINGS = (".gif", ".mp4")
"""Endings of files with a film through the slices."""

_BACKGROUND, _FOREGROUND = "#101418", "#e8eaed"
_HEIGHT_INCHES = 4.2
_LEGEND_COLUMNS = 5
_SLICES_PER_SECOND = 12
_FILM_PIXELS = 384
_FILM_COLOURS = 128


@dataclass(frozen=True)
class Caption:
    """Texts of a picture."""

    title: str = ""
    """Title of the picture."""
    volumes_ml: Mapping[str, float] | None = None
    """Volume of each label in ml, for the legend. `None`: no volumes."""


def draw_planes(
    scene: Scene, *, at: Sequence[int] | None = None, look: Look | None = None, caption: Caption | None = None
) -> "Figure":
    """Draw three planes of a volume, or a picture.

    A picture is drawn without and with its labels.

    Args:
        scene: The scene.
        at: Slice along z, y and x. `None`: the slices with the largest part of all labels.
        look: Style of the labels.
        caption: Title and volumes.

    Raises:
        UsageError: A slice is outside of the volume.
    """
    panels: list[tuple[str, UInt8[np.ndarray, "row column 3"], int]] = []
    if scene.is_volume:
        for axis, index in enumerate(_checked_slices(scene, at)):
            title = f"{PLANE_NAMES[axis]}, {'zyx'[axis]} = {index}"
            panels.append((title, render_plane(scene, axis, index, look=look), axis))
    else:
        panels.append(("", render_plane(scene, look=look, overlay=False), 0))
        if scene.label_map is not None or scene.reference is not None:
            panels.append(("", render_plane(scene, look=look), 0))
    ratios = [pixels.shape[1] / pixels.shape[0] for _, pixels, _ in panels]
    figure = _new_figure(sum(ratios) * _HEIGHT_INCHES, _HEIGHT_INCHES, scene, caption)
    for axes, (title, pixels, axis) in zip(
        np.atleast_1d(figure.subplots(1, len(panels), width_ratios=ratios)), panels, strict=True
    ):
        _show(axes, pixels, title)
        _name_sides(axes, sides_of(scene, axis))
    return figure


def draw_montage(
    scene: Scene,
    *,
    axis: int = 0,
    num_slices: int = 20,
    look: Look | None = None,
    caption: Caption | None = None,
) -> "Figure":
    """Draw slices of a volume side by side.

    The slices are spread evenly over the slices with labels.

    Args:
        scene: A volume.
        axis: Axis of the slices: 0 axial, 1 coronal, 2 sagittal.
        num_slices: Number of slices.
        look: Style of the labels.
        caption: Title and volumes.

    Raises:
        UsageError: The scene is a picture, or the number is below 1.
    """
    _require_volume(scene, "montage")
    if num_slices < 1:
        raise UsageError(f"num_slices {num_slices}: expected at least 1. Choose a larger number.")
    first, last = find_range(scene, axis)
    indices = np.unique(np.linspace(first, last, min(num_slices, last - first + 1)).round().astype(int))
    rows = max(1, round((len(indices) / 1.6) ** 0.5))
    columns = -(-len(indices) // rows)
    height, width = plane_size(scene, axis)
    tile = 2.0
    ratio = min(max(width / height, 0.4), 2.5)
    figure = _new_figure(columns * tile * ratio, rows * tile, scene, caption)
    all_axes = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes, index in zip(all_axes, indices.tolist(), strict=False):
        _show(axes, render_plane(scene, axis, index, look=look), f"{'zyx'[axis]} = {index}")
    for axes in all_axes[len(indices) :]:
        axes.set_axis_off()
    return figure


def write_figure(figure: "Figure", path: Path, *, dpi: int = 110) -> None:
    """Write a figure as a picture.

    Args:
        figure: The figure.
        path: File with an ending of `PICTURE_ENDINGS`.
        dpi: Pixels per inch.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=dpi)


def write_film(scene: Scene, path: Path, *, axis: int = 0, look: Look | None = None) -> int:
    """Write a film through the slices of a volume.

    Args:
        scene: A volume.
        path: File ending in `.gif` or `.mp4`. MP4 needs imageio with PyAV.
        axis: Axis of the slices: 0 axial, 1 coronal, 2 sagittal.
        look: Style of the labels.

    Returns:
        The number of slices.

    Raises:
        InputError: imageio or PyAV is missing for MP4.
        UsageError: The scene is a picture.
    """
    _require_volume(scene, "film")
    style = "both" if look is None else look.style
    look = Look(style, num_pixels=_FILM_PIXELS)
    count = scene.shape[axis]
    order = range(count) if axis else reversed(range(count))  # from head to feet
    frames = (render_plane(scene, axis, index, look=look) for index in order)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = _as_gif(frames) if path.suffix.lower() == ".gif" else _as_mp4(frames)
    with written_whole(path) as temporary:
        temporary.write_bytes(content)
    return count


def _as_gif(frames: Iterator[UInt8[np.ndarray, "row column 3"]]) -> bytes:
    """Return frames as an animated GIF."""
    from PIL import Image as Picture

    pictures = [Picture.fromarray(frame).quantize(_FILM_COLOURS) for frame in frames]
    buffer = io.BytesIO()
    milliseconds = round(1000 / _SLICES_PER_SECOND)
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)
    return buffer.getvalue()


def _as_mp4(frames: Iterator[UInt8[np.ndarray, "row column 3"]]) -> bytes:
    """Return frames as a video of H.264.

    Raises:
        InputError: A package is missing.
    """
    try:
        import av  # noqa: F401
        import imageio.v3 as imageio
    except ImportError as error:
        raise InputError(
            f"MP4: expected imageio and PyAV, got none ({error}). Run: pip install imageio av, or choose a .gif."
        ) from error
    even = np.stack([frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2] for frame in frames])
    content = imageio.imwrite(
        "<bytes>", even, extension=".mp4", plugin="pyav", codec="libx264", fps=_SLICES_PER_SECOND
    )
    return bytes(content)


def _checked_slices(scene: Scene, at: Sequence[int] | None) -> list[int]:
    """Return the slice along each axis."""
    if at is None:
        return [choose_slice(scene, axis) for axis in range(3)]
    if len(at) != 3 or any(not 0 <= index < size for index, size in zip(at, scene.shape, strict=False)):
        sizes = ", ".join(str(size - 1) for size in scene.shape)
        raise UsageError(
            f"at {','.join(map(str, at))}: expected three slices z,y,x of at most {sizes}. Choose others."
        )
    return list(at)


def _require_volume(scene: Scene, form: str) -> None:
    if not scene.is_volume:
        raise UsageError(f"{form}: expected a volume, got a picture of two axes. Choose planes.")


def _new_figure(width: float, height: float, scene: Scene, caption: Caption | None) -> "Figure":
    """Return a dark figure with title and legend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    caption = caption or Caption()
    values = scene.found_values()
    palette = scene.palette() / 255
    entries = [
        (name, palette[of_label[0]]) for name, of_label in scene.labels.items() if values & set(of_label)
    ]
    width = max(width, 5.0)
    columns = max(1, min(_LEGEND_COLUMNS, int(width / 2.2), len(entries) + (scene.reference is not None)))
    rows = -(-(len(entries) + (scene.reference is not None)) // columns)
    figure = Figure(
        figsize=(width, height + 0.28 * rows + (0.4 if caption.title else 0.2)),
        layout="constrained",
        facecolor=_BACKGROUND,
    )
    FigureCanvasAgg(figure)
    if caption.title:
        figure.suptitle(_plain(caption.title), color=_FOREGROUND, fontsize="medium")
    volumes = caption.volumes_ml or {}
    handles = [
        Patch(
            facecolor=colour,
            label=_plain(f"{name}  {volumes[name]:.4g} ml" if name in volumes else name),
        )
        for name, colour in entries
    ]
    if scene.reference is not None:
        handles.append(Patch(facecolor="none", edgecolor="#ffffff", label="reference (outline)"))
    if handles:
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            labelcolor=_FOREGROUND,
            fontsize="small",
        )
    return figure


def _plain(text: str) -> str:
    """Return a text without the signs of formulas."""
    return text.replace("$", r"\$")


def _show(axes: "Axes", pixels: UInt8[np.ndarray, "row column 3"], title: str) -> None:
    axes.imshow(pixels, interpolation="antialiased")
    axes.set_axis_off()
    axes.set_title(title, color=_FOREGROUND, fontsize="small")


def _name_sides(axes: "Axes", sides: tuple[str, str, str, str] | None) -> None:
    """Write the sides of the body at the borders of a plane."""
    from matplotlib.patheffects import withStroke

    places = (
        *((0.5, 0.985, "center", "top"), (0.5, 0.015, "center", "bottom")),
        *((0.015, 0.5, "left", "center"), (0.985, 0.5, "right", "center")),
    )
    for letter, (x, y, horizontal, vertical) in zip(sides or (), places, strict=False):
        text = axes.text(x, y, letter, ha=horizontal, va=vertical, transform=axes.transAxes)
        text.set(
            color="#ffd54a", fontsize="small", path_effects=[withStroke(linewidth=2, foreground="#000000")]
        )
