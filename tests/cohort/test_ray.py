"""Cases and jobs on a local Ray cluster of two nodes, one of which is killed."""

import json
import signal
import sys

import pytest

import scanseg
from scanseg.cohort.ray_engine import keep_signal_handler, share_nodes
from scanseg.errors import InterruptionError, ScansegError, UsageError
from tests.cohort.conftest import read_comparison, read_outputs, write_comparison, write_pictures
from tests.factories import SMALL_XLSTM_UNET_2D, write_disks, write_folds


@pytest.fixture(scope="module")
def head():
    """A cluster of one node with one core."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    from ray.cluster_utils import Cluster

    with keep_signal_handler():
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def kill_node(head):
    """Add a node with one core, and return the function that kills it."""
    with keep_signal_handler():
        other = head.add_node(num_cpus=1)
    head.wait_for_nodes()
    killed = []

    def kill():
        if not killed:
            killed.append(other)
            head.remove_node(other, allow_graceful=False)

    yield kill
    kill()


@pytest.fixture
def dataset(tmp_path):
    """Four pictures of a bright disk, in two folds."""
    folder = write_disks(tmp_path / "disks", numbers=range(4))
    write_folds(folder, ((0, 1), (2, 3)), ((2, 3), (0, 1)))
    return folder


@pytest.mark.slow  # starts two nodes and three workers: half a minute
def test_200_cases_if_a_node_is_killed(model, kill_node, tmp_path):
    images = write_pictures(tmp_path / "images", 200, size=(96, 96))
    scanseg.load(model, device="cpu").predict_folder(images, tmp_path / "one", probabilities=True)
    killed, updates = [], []

    def report(update):
        updates.append(update)
        if update.done >= 80:  # by then both workers have cases
            killed.append(update.done)
            kill_node()

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
    assert any("It is repeated" in warning for update in updates for warning in update.warnings)


# Long enough that a fold reports an epoch: jobs send their progress every two seconds.
SETTINGS = (
    *SMALL_XLSTM_UNET_2D,
    *("training.epochs=160", "training.iterations_per_epoch=8", "training.validation_batches=1"),
)


@pytest.mark.timeout(600)
@pytest.mark.slow  # trains two folds twice, and starts a cluster: a minute, more on a busy machine
def test_a_cross_validation_if_a_node_is_killed_and_after_a_stop(kill_node, dataset, tmp_path):
    one, other = tmp_path / "one", tmp_path / "ray" / "folds"
    options = {"settings": SETTINGS, "num_workers": 0}
    scanseg.cross_validate(dataset, one, devices=("cpu",), progress=False, **options)
    killed, stopped, tasks = [], [], set()

    def kill(update):
        tasks.add(update.task)
        if update.task == "folds" and "epoch" in update.detail:
            killed.append(update.detail)
            kill_node()
        if update.task == "folds" and update.done == 1 and not stopped:
            stopped.append(update.detail)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(InterruptionError, match="continue with --resume"):
        scanseg.cross_validate(dataset, other, on="ray", progress=kill, **options)
    assert killed
    assert stopped
    assert not (other / "crossval.json").exists()
    statuses = [json.loads(path.read_text())["status"] for path in sorted(other.glob("fold_*/run.json"))]
    assert statuses.count("finished") == 1
    result = scanseg.cross_validate(dataset, other, on="ray", resume=True, progress=False, **options)
    assert result.record.num_cases == 4
    for name in ("fold_0/model.safetensors", "fold_1/model.safetensors"):
        assert (other / name).read_bytes() == (one / name).read_bytes(), name
    scores = [json.loads((folder / "validation.json").read_text())["cases"] for folder in (one, other)]
    assert scores[0] == scores[1]
    assert {"preprocessing", "folds"} <= tasks


@pytest.mark.timeout(600)
@pytest.mark.slow  # trains two arms twice, and starts a cluster: a minute, more on a busy machine
def test_a_comparison_equals_a_local_run(head, dataset, tmp_path, command):
    words = ("compare", write_comparison(tmp_path / "blocks.json"), dataset, "--num-workers", 0, "-o")
    outcome = command(*words, tmp_path / "one", "--devices", "cpu")
    assert outcome.code == 0, outcome.stderr
    outcome = command(*words, tmp_path / "ray", "--on", "ray")
    assert outcome.code == 0, outcome.stderr
    assert read_comparison(tmp_path / "ray") == read_comparison(tmp_path / "one")


@pytest.mark.slow  # starts a cluster: half a minute
def test_an_error_of_a_case_reaches_the_user(head, dataset, tmp_path):
    (dataset / "imagesTr" / "case_2_0000.png").write_bytes(b"no picture")
    with pytest.raises(ScansegError, match="case_2"):
        scanseg.preprocess(dataset, store=tmp_path / "stores", on="ray", progress=False)


def test_a_cluster_is_divided_into_equal_shares():
    share = share_nodes([{"CPU": 8.0}, {"CPU": 5.0}], num_threads=2)
    assert (share.device, share.num_cpus, share.count) == ("cpu", 2, 6)
    share = share_nodes([{"CPU": 2.0}, {"CPU": 3.0}], num_threads=64)
    assert (share.num_cpus, share.count) == (3, 1), "a node must be large enough"
    share = share_nodes([{"CPU": 4.0}, {"CPU": 64.0, "GPU": 8.0}, {"CPU": 32.0, "GPU": 2.0}], num_threads=2)
    assert (share.device, share.num_gpus, share.num_cpus, share.count) == ("cuda", 1, 8, 10)
    with pytest.raises(UsageError, match="expected nodes with a GPU or a CPU"):
        share_nodes([{"memory": 1.0}], num_threads=1)


@pytest.mark.slow  # imports Ray
def test_an_unreachable_cluster_is_one_error(model, tmp_path, command):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    images = write_pictures(tmp_path / "images", 1)
    words = ("predict", model, images, "-o", tmp_path / "out", "--on", "ray", "--ray-address", "no-host:port")
    outcome = command(*words)
    assert outcome.code == 2
    assert "error: --ray-address no-host:port: " in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert not (tmp_path / "out").exists()


def test_a_missing_library_is_named(model, tmp_path, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    outcome = command("preprocess", tmp_path, "--store", tmp_path, "--on", "ray")
    assert outcome.code == 2
    assert outcome.stderr.endswith('Install it: pip install "scanseg[ray]"\n')
