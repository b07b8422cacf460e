"""The demo on a coarse brain with few steps: every part runs and every file exists."""

from dataclasses import replace

import pytest
from PIL import Image as PILImage

from scanseg.demo import anatomy, run
from scanseg.errors import UsageError
from scanseg.imaging import read_image, read_label_map


@pytest.fixture
def coarse_brain(monkeypatch):
    read_template = anatomy.read_template

    def read_coarsely():
        brain, tissues = read_template()
        coarse = (slice(None, None, 4),) * 3
        spacing = tuple(4 * size for size in brain.spacing)
        return replace(brain, array=brain.array[(slice(None), *coarse)], spacing=spacing), tissues[coarse]

    monkeypatch.setattr(anatomy, "read_template", read_coarsely)


@pytest.fixture
def few_steps(monkeypatch):
    import sys

    module = sys.modules[run.__module__]
    small = {
        recipe: (
            *settings,
            "training.epochs=1",
            "training.iterations_per_epoch=2",
            "training.validation_batches=1",
        )
        for recipe, settings in module._SETTINGS.items()
    }
    monkeypatch.setattr(module, "_SETTINGS", small)


@pytest.mark.parametrize("recipe", ["xlstm-unet", "msvm-unet"])
def test_writes_scores_label_maps_and_a_picture(coarse_brain, few_steps, tmp_path, recipe):
    output = tmp_path / "out"

    result = run(recipe=recipe, output=output)
    again = run(recipe=recipe, output=output)

    assert set(result.network_dice) == set(result.threshold_dice) == {"grey matter", "white matter"}
    assert 0.3 < result.threshold_dice["grey matter"] < 0.95
    assert again.network_dice == result.network_dice
    for name in ("slab-2", "slab-4"):
        label_map = read_label_map(result.label_maps / f"{name}.nii.gz")
        image = read_image(output / "dataset" / "imagesTr" / f"{name}_0000.nii.gz")
        assert label_map.shape == image.shape
        assert label_map.spacing == image.spacing
    with PILImage.open(result.picture) as picture:
        assert picture.width > 800


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("important")

    with pytest.raises(UsageError, match="holds files that no demo wrote"):
        run(output=tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "important"
