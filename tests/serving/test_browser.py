"""The viewer in a real browser: Debian's Chromium without a display, WebGL 2 in software."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image as Picture

from scanseg.imaging import read_label_map
from scanseg.inference import Predictor
from tests.browser import chromium
from tests.serving.conftest import threshold_predictor

serving = pytest.importorskip("scanseg.serving", reason="the extra serve is not installed")

SHAPE = (24, 20, 16)
"""Voxels along right, anterior, superior."""
POINTS = ((5, 6, 4), (18, 13, 11))
"""Bright voxels of the phantom, in cubes of three."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start Chromium."""
    with chromium() as opened:
        yield opened


@pytest.fixture
def show(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Open the page of an image. No other host may be asked, and no error may be logged."""
    monkeypatch.chdir(tmp_path)
    hosts, faults, servers = set[str](), list[str](), list[Any]()
    page = browser.new_page(viewport={"width": 900, "height": 640})
    page.set_default_timeout(30_000)
    page.on("request", lambda request: hosts.add(request.url.split("/")[2] if "//" in request.url else ""))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)

    def run(image: Path, *label_maps: Path, models: dict[str, Predictor] | None = None) -> Any:
        server = serving.serve_page(serving.Viewer([image], label_maps, models or {}), models or {})
        servers.append(server.__enter__())
        page.goto(server.page)
        page.wait_for_selector("body[data-ready]")
        return page

    yield run
    page.close()
    for server in servers:
        server.stop()
        assert hosts <= {f"127.0.0.1:{server.port}", ""}
    assert faults == []


@pytest.fixture
def phantom(tmp_path: Path) -> Path:
    """Write a volume with two bright cubes. Its axes are left, posterior, superior."""
    array = np.zeros(SHAPE, np.float32)
    for x, y, z in POINTS:
        array[x - 1 : x + 2, y - 1 : y + 2, z - 1 : z + 2] = 1
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    nibabel.Nifti1Image(array[::-1, ::-1], affine).to_filename(tmp_path / "phantom.nii.gz")
    return tmp_path / "phantom.nii.gz"


def until(page: Any, condition: str, seconds: float = 30.0) -> None:
    """Wait until an expression is true. The page's policy forbids the browser's own polling."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, f"{condition}: {page.locator('#message').inner_text()}"
        page.wait_for_timeout(20)


def move_to(page: Any, point: tuple[int, int, int]) -> None:
    """Move the crosshair to a voxel by its keys."""
    page.evaluate("viewer.nv.scene.crosshairPos = viewer.nv.vox2frac([0, 0, 0])")
    page.focus("#picture")
    for key, count in zip(("ArrowRight", "ArrowUp", "PageUp"), point, strict=True):
        for _ in range(count):
            page.keyboard.press(key)


def colour_at(
    page: Any, point: tuple[int, int, int], *, offset: tuple[int, int, int] = (0, 0, 0)
) -> np.ndarray:
    """Return the colour that is shown beside the crosshair, in the planes' first tile that shows the voxel."""
    script = """([x, y, z]) => {
        const nv = viewer.nv;
        nv.opts.crosshairWidth = 0;
        nv.scene.crosshairPos = nv.vox2frac([x, y, z]);
        nv.drawScene();
        const spot = nv.frac2canvasPos(nv.vox2frac([x, y, z]));
        const pixel = new Uint8Array(4);
        nv.gl.readPixels(Math.round(spot[0]), nv.gl.canvas.height - Math.round(spot[1]), 1, 1, nv.gl.RGBA,
            nv.gl.UNSIGNED_BYTE, pixel);
        return [...pixel];
    }"""
    return np.array(page.evaluate(script, [a + b for a, b in zip(point, offset, strict=True)])[:3])


def test_each_plane_shows_the_voxels_of_the_phantom(show, phantom):
    page = show(phantom)
    for view in ("axial", "coronal", "sagittal"):
        page.check(f"input[value={view}]")
        for point in POINTS:
            assert colour_at(page, point).min() > 200, view
        for point in ((18, 6, 4), (5, 13, 4), (5, 6, 11), (0, 0, 0)):
            assert colour_at(page, point).max() < 50, view
    move_to(page, POINTS[0])
    until(page, "document.getElementById('location').textContent.includes('voxel 5, 6, 4; intensity 1')")


def test_a_prediction_appears_and_is_hidden_compared_corrected_and_saved(show, phantom, tmp_path):
    page = show(phantom, models={"bright": threshold_predictor()})
    page.check("input[value=axial]")
    grey = colour_at(page, POINTS[0])
    page.check("#uncertainty")
    page.click("#run")
    until(page, "viewer.layers().length === 2")
    labels = page.locator("#overlays li").first
    assert "bright" in labels.inner_text()
    assert "0.054" in labels.inner_text()  # ml of 54 voxels
    page.uncheck("#overlays li:nth-child(2) input[type=checkbox]")
    coloured = colour_at(page, POINTS[0])
    assert np.abs(coloured - grey).max() > 50
    labels.get_by_role("checkbox").uncheck()
    assert np.abs(colour_at(page, POINTS[0]) - grey).max() < 10
    labels.get_by_role("checkbox").check()
    labels.get_by_role("slider").fill("0.2")
    assert 10 < np.abs(colour_at(page, POINTS[0]) - grey).max() < np.abs(coloured - grey).max()

    page.click("#run")
    until(page, "viewer.layers().length === 4")
    labels.get_by_role("button", name="Correct").click()
    page.fill("#size", "1")
    page.dispatch_event("#size", "change")
    start, end = (10, 4, 4), (14, 4, 4)
    draw(page, start, end)
    page.click("#eraser")
    draw(page, (4, 6, 4), (6, 6, 4))
    page.click("#keep")
    page.wait_for_selector("#edit", state="hidden")
    page.keyboard.press("Tab")  # the page reacts to keys after the correction
    page.click("#compare")  # the second label map is chosen
    page.wait_for_selector("#scores:not([hidden])")
    assert f"{2 * 51 / (54 + 56):.4f}" in page.locator("#scores").inner_text()
    labels.get_by_role("button", name="Save").click()
    until(page, "document.getElementById('message').textContent.startsWith('Saved')")
    saved = nibabel.load(tmp_path / "phantom-corrected.nii.gz")
    found = np.asarray(saved.dataobj)[::-1, ::-1]
    expected = (np.asarray(nibabel.load(phantom).dataobj)[::-1, ::-1] > 0.5).astype(np.uint8)
    expected[10:15, 4, 4] = 1
    expected[4:7, 6, 4] = 0
    assert np.array_equal(found, expected)


WATCH = """() => {
    const { nv } = viewer;
    window.sent = [];
    window.refreshed = [];
    const send = nv.gl.texSubImage3D.bind(nv.gl);
    nv.gl.texSubImage3D = (...words) => { sent.push(words.slice(5, 8)); send(...words); };
    const refresh = nv.refreshLayers.bind(nv);
    nv.refreshLayers = (volume, layer) => { refreshed.push(layer); refresh(volume, layer); };
}"""


def test_a_stroke_sends_its_box_and_is_undone(show, phantom):
    page = show(phantom, models={"bright": threshold_predictor()})
    page.check("input[value=axial]")
    page.click("#run")
    until(page, "viewer.layers().length === 1")
    grey = colour_at(page, (12, 4, 4))
    page.evaluate(WATCH)
    layer = page.locator("#overlays li").first
    layer.get_by_role("button", name="Correct").click()
    assert page.evaluate("refreshed") == [], "the hidden label map needs no texture"
    page.fill("#size", "3")
    page.dispatch_event("#size", "change")
    before = page.evaluate("[...viewer.nv.drawBitmap]")
    page.evaluate("sent.length = 0")
    draw(page, (10, 4, 4), (14, 4, 4))
    drawn = page.evaluate("[...viewer.nv.drawBitmap]")
    draw(page, (0, 19, 4), (1, 19, 4))  # the corner
    sent = page.evaluate("sent")
    assert sent
    assert all((x <= 7 and y == 3) or (y <= 2 and x <= 3) for x, y, z in sent), sent
    assert sum(drawn) - sum(before) == 7 * 3
    assert np.abs(colour_at(page, (12, 4, 4)) - grey).max() > 50
    assert colour_at(page, (0, 19, 4)).max() > 50
    page.focus("#picture")
    page.keyboard.press("Control+z")
    assert page.evaluate("[...viewer.nv.drawBitmap]") == drawn
    assert colour_at(page, (0, 19, 4)).max() < 50
    page.click("#undo")
    page.click("#undo")  # nothing is left
    assert page.evaluate("[...viewer.nv.drawBitmap]") == before
    assert np.abs(colour_at(page, (12, 4, 4)) - grey).max() < 10
    draw(page, (10, 4, 4), (14, 4, 4))
    page.click("#keep")
    page.wait_for_selector("#edit", state="hidden")
    assert np.abs(colour_at(page, (12, 4, 4)) - grey).max() > 50
    layer.get_by_role("checkbox").uncheck()
    assert np.abs(colour_at(page, (12, 4, 4)) - grey).max() < 10
    layer.get_by_role("checkbox").check()
    assert np.abs(colour_at(page, (12, 4, 4)) - grey).max() > 50
    assert set(page.evaluate("refreshed")) == {1}, "the image keeps its texture"
    page.fill("#upper", "0.5")
    page.dispatch_event("#upper", "change")
    assert page.evaluate("refreshed.includes(0)"), "another window needs another texture"


def draw(page: Any, start: tuple[int, int, int], end: tuple[int, int, int]) -> None:
    """Drag with the mouse from one voxel to another in the axial plane."""
    script = """(point) => {
        const nv = viewer.nv;
        nv.scene.crosshairPos = nv.vox2frac(point);
        nv.drawScene();
        const spot = nv.frac2canvasPos(nv.vox2frac(point));
        const box = nv.canvas.getBoundingClientRect();
        return [box.left + spot[0] / nv.uiData.dpr, box.top + spot[1] / nv.uiData.dpr];
    }"""
    first, last = (page.evaluate(script, list(point)) for point in (start, end))
    page.evaluate(script, list(start))
    page.mouse.move(*first)
    page.mouse.down()
    page.mouse.move(*last, steps=8)
    page.mouse.up()


def test_pictures_are_drawn_on_by_keys_alone(show, tmp_path):
    pixels = np.zeros((12, 18, 3), np.uint8)
    pixels[2, 3] = (250, 20, 20)
    Picture.fromarray(pixels).save(tmp_path / "cells.png")
    page = show(tmp_path / "cells.png")
    assert page.locator("#views input").count() == 0
    assert colour_at(page, (3, 9, 0))[0] > 200  # y points up
    page.focus("#new")
    page.keyboard.press("Enter")
    page.wait_for_selector("#edit:not([hidden])")
    page.fill("#size", "1")
    page.dispatch_event("#size", "change")
    move_to(page, (3, 9, 0))
    until(page, "document.getElementById('location').textContent.startsWith('pixel 3, 2')")
    page.keyboard.press("Space")
    until(page, "document.getElementById('location').textContent.endsWith('new label map: label 1')")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    page.keyboard.press("Control+z")
    page.get_by_role("button", name="Save new label map").press("Enter")
    until(page, "document.getElementById('message').textContent.startsWith('Saved')")
    expected = np.zeros((12, 18), np.uint8)
    expected[2, 3:5] = 1
    assert np.array_equal(read_label_map(tmp_path / "cells-corrected.png").array[0], expected)


def test_every_control_has_a_name_and_contrast_of_state(show, phantom):
    page = show(phantom, models={"bright": threshold_predictor()})
    unnamed = """() => [...document.querySelectorAll('button, input, select, canvas, ul, table, progress')]
        .filter((each) => !(each.textContent.trim() || each.ariaLabel || each.labels?.length ||
            each.getAttribute('aria-labelledby'))).map((each) => each.outerHTML)"""
    page.click("#run")
    until(page, "viewer.layers().length === 1")
    assert page.evaluate(unnamed) == []
    assert page.locator("#mirror").is_disabled()  # the plan has no mirror axes
    assert page.title() == "phantom.nii.gz - scanseg viewer"
    assert page.evaluate("document.documentElement.lang") == "en"


def test_the_command_prints_the_address(monkeypatch, command, phantom):
    asked = []
    monkeypatch.setattr("webbrowser.open", lambda url: asked.append(url) or True)
    monkeypatch.setattr("scanseg.serving.Server.wait", lambda self: None)
    outcome = command("view", phantom)
    assert outcome.code == 0
    assert outcome.stdout.strip().endswith(asked[0])
