"""The card of a model: use, training, scores and limits."""

from scanseg.evaluation import evaluate
from scanseg.models import ModelFolder
from scanseg.pretrained import make_card
from scanseg.runtime import RunContext
from tests.factories import write_disks


def test_it_names_use_training_and_limits(model):
    card = make_card(model, name="our-discs", about="Data: *synthetic*, CC0.")
    assert card.startswith(
        "# our-discs\n\nThis model of scanseg segments `disc` in pictures with the channels `MRI`.\n"
    )
    assert "\nData: *synthetic*, CC0.\n" in card
    assert "    scanseg predict our-discs IMAGES -o predictions\n" in card
    for row in (
        "| training cases | 2 |",
        "| validation cases | 1 |",
        "| iterations | 500 |",
        "| training time | 0:01:30 |",
        "| weights | best |",
        "| trained | 2026-11-30 |",
        "| versions | scanseg 0.1.0, torch 2.13.0 |",
        "| initial weights | random |",
    ):
        assert row in card
    assert "The validation cases chose its weights, so their scores are optimistic." in card
    assert "It is no medical device." in card


def test_scores_of_validation_and_test_cases(model, tmp_path):
    dataset = write_disks(tmp_path / "data")
    report = evaluate(dataset / "labelsTr", dataset / "labelsTr", context=RunContext(num_workers=0))
    folder = ModelFolder.open(model)
    assert "## Validation cases" not in make_card(model)
    folder.scores.write_validation(report, weights="best")
    card = make_card(model)
    assert "## Validation cases\n\n5 cases, rule `skip`." in card
    assert "| disk | 1.0" in card
