"""An `ensemble.json` that does not fit its members is refused with its faults."""

import json

import pytest
import torch

from scanseg.errors import InputError
from scanseg.models import ModelFolder, load_model, write_ensemble
from scanseg.specs import EnsembleSpec, PostprocessingSpec
from tests.factories import make_plan


@pytest.fixture
def ensemble(tmp_path):
    """Folder of two models of the same plan."""
    for name in ("fold_0", "fold_1"):
        folder = ModelFolder.create(tmp_path / name, make_plan())
        folder.write_weights(folder.build_network().state_dict())
    return tmp_path


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_unknown_labels_of_the_postprocessing_are_refused(ensemble, average):
    known = tuple(make_plan().dataset.foreground)

    def load(*labels):
        spec = PostprocessingSpec(largest_component=labels)
        write_ensemble(
            ensemble, EnsembleSpec(members=("fold_0", "fold_1"), average=average, postprocessing=spec)
        )
        return load_model(ensemble, device=torch.device("cpu"))

    assert load(*known).postprocessing.largest_component == known
    with pytest.raises(InputError, match=rf"ensemble\.json: .* \({', '.join(known)}\), got liver, spleen"):
        load("liver", *known, "spleen")


@pytest.mark.parametrize("members", [["fold_0", "fold_1", "fold_0"], ["fold_0", "./fold_0"]])
def test_members_are_named_once(ensemble, members):
    (ensemble / "ensemble.json").write_text(json.dumps({"members": members}))
    with pytest.raises(InputError, match="members: expected each member once, got fold_0 more than once"):
        load_model(ensemble, device=torch.device("cpu"))
