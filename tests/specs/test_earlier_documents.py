"""Documents with the names of fields before version 0.1.0 are read without a loss.

`earlier_documents.json` was written by the code of commit 8c63a3c, the last one with those names: a plan of each
network, and each record and index with a value in every field.
"""

import json
from pathlib import Path

import pytest

from scanseg import specs
from scanseg.settings import apply_settings
from scanseg.specs import RENAMED_FIELDS, Plan
from scanseg.specs.records import reproduction

EARLIER = json.loads((Path(__file__).parent / "earlier_documents.json").read_text(encoding="utf-8"))
VALUES = {"sound": "held-out"}


def read(kind, content, tmp_path):
    """Read a document from a file, and return its content with today's names."""
    path = tmp_path / "document.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return json.loads(kind.read(path).to_json())


def assert_kept(earlier, now, *, where=""):
    """Check that each value of the earlier document is in today's."""
    if isinstance(earlier, dict):
        for name, value in earlier.items():
            # Run records describe each session since then.
            place = name if name in now else RENAMED_FIELDS.get(name, name)
            holder = now if place in now else now["sessions"][0]
            assert_kept(value, holder[place], where=f"{where}.{name}")
    elif isinstance(earlier, list):
        assert len(earlier) == len(now), where
        for number, (old, new) in enumerate(zip(earlier, now, strict=True)):
            assert_kept(old, new, where=f"{where}.{number}")
    else:
        assert VALUES.get(earlier, earlier) == now, where


@pytest.mark.parametrize("recipe", EARLIER["plans"])
def test_plans(recipe, tmp_path):
    content = EARLIER["plans"][recipe]
    assert_kept(content, read(Plan, content, tmp_path))


@pytest.mark.parametrize("name", EARLIER["documents"])
def test_records_and_indices(name, tmp_path):
    kind = getattr(specs, name, None) or getattr(reproduction, name)
    content = EARLIER["documents"][name]
    assert_kept(content, read(kind, content, tmp_path))


def test_every_renamed_field_occurs():
    text = json.dumps(EARLIER)
    assert [name for name in RENAMED_FIELDS if f'"{name}": ' not in text] == []


def test_settings_of_an_earlier_comparison_are_applied():
    spec = specs.ComparisonSpec.model_validate(EARLIER["documents"]["ComparisonSpec"])
    (settings,) = (arm.settings for arm in spec.arms if arm.settings)
    plan = Plan.model_validate(EARLIER["plans"]["xlstm-unet"])
    assert apply_settings(plan, settings).training.ema_decay == 0.9
