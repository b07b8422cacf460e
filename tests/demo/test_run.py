"""The demo on a coarse brain with few steps: every part runs and every file exists."""

import pytest
from PIL import Image as PILImage

from scanseg.demo import run
from scanseg.errors import UsageError
from scanseg.imaging import read_image, read_label_map


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


@pytest.mark.parametrize("recipe", [None, "msvm-unet"])
def test_writes_scores_label_maps_and_a_picture(coarse_brain, few_steps, tmp_path, recipe):
    output = tmp_path / "out"
    recipes = ["msvm-unet", "xlstm-unet"] if recipe is None else [recipe]

    result = run(recipe=recipe, output=output)
    if recipe is not None:  # a second run replaces the first and equals it
        assert run(recipe=recipe, output=output).network_dice == result.network_dice

    assert list(result.network_dice) == recipes
    for name in recipes:
        assert set(result.network_dice[name]) == {"fluid", "grey matter", "white matter"}
        assert (output / "reports" / f"{name}.json").is_file()
        for case in ("slab-2", "slab-4"):
            label_map = read_label_map(result.label_maps / name / f"{case}.nii.gz")
            image = read_image(output / "dataset" / "imagesTr" / f"{case}_0000.nii.gz")
            assert label_map.shape == image.shape
            assert label_map.spacing == image.spacing
    assert 0.3 < result.threshold_dice["grey matter"] < 0.95
    with PILImage.open(result.picture) as picture:
        assert picture.width == pytest.approx(1.3 * 270 * (3 + len(recipes)), abs=2)


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("important")

    with pytest.raises(UsageError, match="holds files that no demo wrote"):
        run(output=tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "important"
