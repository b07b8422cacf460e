"""The viewer's requests, without a browser."""

import gzip

import numpy as np
import pytest
from PIL import Image as Picture

from scanseg.errors import InputError
from scanseg.imaging import Image, read_image, read_label_map, write_label_map
from tests.factories import image_of, write_volume
from tests.serving.conftest import threshold_predictor

httpx = pytest.importorskip("httpx", reason="the extra serve is not installed")
serving = pytest.importorskip("scanseg.serving", reason="the extra serve is not installed")
canonical_module = pytest.importorskip("scanseg.serving.canonical", reason="the extra serve is not installed")

TURNED = (0, 0, 1, -1, 0, 0, 0, 1, 0)
"""Direction cosines of axes in another order, one of them reversed."""


def volume_of(array: np.ndarray) -> Image:
    return Image(array[np.newaxis], (3.0, 0.5, 0.75), (1.0, 2.0, 3.0), tuple(map(float, TURNED)))


@pytest.fixture
def show(tmp_path):
    """Show an image, and return a client of its server with the token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        opened = []

        def run(*arguments, models=None, **options):
            models = models or {}
            server = serving.serve_page(serving.Viewer(*arguments, models, **options), models)
            server.__enter__()
            client = httpx.Client(base_url=server.url, verify=False, trust_env=False, follow_redirects=True)
            opened.append((server, client))
            assert client.get(server.page).status_code == 200
            return client

        yield run
        for server, client in opened:
            client.close()
            server.stop()


def test_turning_puts_voxels_at_their_position_and_back(rng):
    array = rng.integers(0, 255, (3, 4, 5)).astype(np.uint8)
    image = volume_of(array)
    canonical = canonical_module.Canonical.of(image)
    turned = canonical.turn(array)
    assert np.array_equal(canonical.turn_back(turned), array)
    z, y, x = 1, 2, 4
    lps = np.array(image.origin) + np.reshape(TURNED, (3, 3)) @ (np.array([x, y, z]) * [0.75, 0.5, 3.0])
    position = np.linalg.inv(canonical.affine) @ [-lps[0], -lps[1], lps[2], 1]
    assert turned[tuple(np.round(position[:3]).astype(int))] == array[z, y, x]
    assert np.all(np.diag(canonical.affine)[:3] > 0)


def test_pictures_lie_upright(rng):
    pixels = rng.integers(0, 255, (3, 4, 6)).astype(np.uint8)
    canonical = canonical_module.Canonical.of(image_of(pixels))
    turned = canonical.turn(pixels[0])
    assert turned.shape == (6, 4, 1)
    assert turned[5, 3, 0] == pixels[0, 0, 5]  # the first row is the last one along y, which points up
    assert np.array_equal(canonical.turn_back(turned), pixels[0])


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_drawn_voxels_are_saved_on_the_grid_of_the_image(show, tmp_path, ending):
    array = np.zeros((3, 4, 5), np.int16)
    write_volume(tmp_path / f"scan{ending}", array, direction=TURNED, origin=(1, 2, 3))
    client = show([tmp_path / f"scan{ending}"], [])
    overlay = client.post("/view/overlays").json()["id"]
    image = read_image(tmp_path / f"scan{ending}")
    drawn = np.zeros((3, 4, 5), np.uint8)
    drawn[1, 2, 3] = 1
    voxels = canonical_module.Canonical.of(image).turn(drawn).tobytes(order="F")
    described = client.put(f"/view/overlays/{overlay}", content=gzip.compress(voxels)).json()
    assert described["labels"][0]["voxels"] == 1
    for number in ("", ""):  # saving again replaces the own file
        answer = client.post(f"/view/overlays/{overlay}/save").json()
        assert answer["path"] == f"scan-corrected{number}{ending}"
    saved = read_label_map(tmp_path / f"scan-corrected{ending}")
    assert np.array_equal(saved.array[0], drawn)
    assert np.allclose(saved.direction, image.direction)
    packed = gzip.compress(voxels)
    for wrong in (
        voxels,
        gzip.compress(voxels[1:]),
        gzip.compress(voxels + b"0"),
        packed[:-1],
        gzip.compress(bytes(10**8)),
    ):
        assert client.put(f"/view/overlays/{overlay}", content=wrong).status_code == 400


def test_existing_files_are_kept(show, tmp_path):
    Picture.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "cells.png")
    (tmp_path / "cells-corrected.png").write_text("of another program")
    client = show([tmp_path / "cells.png"], [])
    overlay = client.post("/view/overlays").json()["id"]
    assert client.post(f"/view/overlays/{overlay}/save").json()["path"] == "cells-corrected-2.png"
    assert (tmp_path / "cells-corrected.png").read_text() == "of another program"


def test_comparison_has_dice_and_a_difference_map(show, tmp_path):
    first, second = np.zeros((2, 3, 4, 5), np.uint8)
    first[0, 0, :4], second[0, 0, 2:5] = 1, 1
    first[1], second[1] = 2, 2
    second[1, 0, 0] = 1
    write_volume(tmp_path / "scan.nii.gz", np.zeros((3, 4, 5), np.float32))
    image = read_image(tmp_path / "scan.nii.gz")
    for name, array in (("a", first), ("b", second)):
        write_label_map(tmp_path / f"{name}.nii.gz", array, like=image)
    client = show([tmp_path / "scan.nii.gz"], [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"])
    a, b = (overlay["id"] for overlay in client.get("/view/state").json()["overlays"])
    answer = client.post("/view/compare", params={"first": a, "second": b}).json()
    assert [(row["value"], row["dice"]) for row in answer["rows"]] == [
        (1, 2 * 2 / (4 + 4)),
        (2, 2 * 19 / (20 + 19)),
    ]
    assert [(each["name"], each["voxels"]) for each in answer["overlay"]["labels"]] == [
        ("only in the first", 2),
        ("only in the second", 1),
        ("different labels", 1),
    ]


def test_a_label_map_of_another_grid_is_refused(tmp_path):
    write_volume(tmp_path / "scan.nii.gz", np.zeros((3, 4, 5), np.float32))
    write_volume(tmp_path / "labels.nii.gz", np.zeros((3, 4, 6), np.uint8))
    with pytest.raises(InputError, match="expected the grid of the image"):
        serving.Viewer([tmp_path / "scan.nii.gz"], [tmp_path / "labels.nii.gz"], {})


def test_the_page_needs_the_token_of_its_address(show, tmp_path):
    Picture.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "cells.png")
    client = show([tmp_path / "cells.png"], [], models={"flat": threshold_predictor(2)})
    assert client.get("/view/state").json()["models"] == [
        {"name": "flat", "can_mirror": False, "mirrors": False}
    ]
    with httpx.Client(base_url=client.base_url, verify=False, trust_env=False) as other:
        for path in ("/", "/view/state", "/view/image/0.nii", "/start?token=x", "/page/viewer.js"):
            assert other.get(path).status_code == 401
    assert client.get("/page/../viewer.py").status_code == 404
    assert client.get("/page/..%2fviewer.py").status_code == 404
    assert client.get("/view/state", headers={"origin": "http://evil.example"}).status_code == 403
