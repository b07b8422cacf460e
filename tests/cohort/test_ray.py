"""Cases and jobs on a local Ray cluster of two nodes, one of which is killed."""

import json
import signal
from pathlib import Path

import pytest

import scanseg
from scanseg.cohort.ray_engine import share_nodes
from scanseg.errors import ScansegError, UsageError
from scanseg.specs import PredictionRecord
from tests.cohort.conftest import read_outputs, write_pictures
from tests.factories import SMALL_XLSTM_UNET_2D, write_disks


@pytest.fixture
def cluster():
    """A cluster with a head node and one more, each with one core."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.other = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow  # starts two nodes and three workers: half a minute
def test_200_cases_if_a_node_is_killed(model, cluster, tmp_path, command):
    images = write_pictures(tmp_path / "images", 200)
    scanseg.load(model, device="cpu").predict_folder(images, tmp_path / "one", probabilities=True)
    killed, updates = [], []

    def report(update):
        updates.append(update)
        hosts = {}
        if update.done >= 20 and not killed:
            cluster.remove_node(cluster.other, allow_graceful=False)
            killed.append(update.done)

    record = scanseg.predict_cohort(
        model, images, tmp_path / "ray", on="ray", probabilities=True, progress=report
    )
    assert killed
    assert killed[0] < 150
    assert len(record.cases) == 200
    assert [case.fault for case in record.cases] == [None] * 200
    assert record.device == "Ray, 2 x cpu"
    assert read_outputs(tmp_path / "ray") == read_outputs(tmp_path / "one")
    assert updates[-1].done == updates[-1].total == 200
    print([w for u in updates for w in u.warnings])
