"""Where cases are held, and that it does not change what is learnt."""

import pytest
import torch
from safetensors.torch import load_file

import scanseg
from scanseg.training import case_storage as storage

from .conftest import SETTINGS

CPU = torch.device("cpu")


@pytest.mark.parametrize(("free", "place"), [(2000, "host"), (1999, "disk")])
def test_cases_go_to_disk_where_they_would_fill_more_than_half_of_the_memory(monkeypatch, free, place):
    monkeypatch.setattr(storage, "case_bytes", lambda store, cases: 1000)
    monkeypatch.setattr(storage, "free_memory", lambda: free)

    assert storage.choose_case_storage("auto", None, (), device=CPU) == place
    assert storage.choose_case_storage("auto", None, (), device=CPU, num_sharing=2) == "disk"
    assert storage.choose_case_storage("disk", None, (), device=CPU) == "disk"


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_training_from_disk_is_that_from_memory(dataset, tmp_path, num_workers):
    import json

    settings = (*SETTINGS, 'augmentation=[{"kind": "affine", "rotation_probability": 1}]')
    for place in ("host", "disk"):
        scanseg.train(
            dataset,
            tmp_path / place,
            settings=(*settings, f"training.case_storage={place}"),
            device="cpu",
            num_workers=num_workers if place == "disk" else 0,
        )

    ours, theirs = (load_file(tmp_path / place / "model.safetensors") for place in ("disk", "host"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert json.loads((tmp_path / "disk" / "run.json").read_text())["case_storage"] == "disk"
