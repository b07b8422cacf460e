"""The server: requests, queue, limits, access, and its end."""

import concurrent.futures
import gzip
import io
import itertools
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image as Picture

import scanseg
from scanseg.cli.interrupts import raise_on_signals
from scanseg.cli.serve import run_until_stopped
from scanseg.errors import InputError, ScansegError, UsageError
from scanseg.imaging import read_image, read_label_map
from tests.dicom_series import write_series
from tests.serving.conftest import HeldPredictor, nifti_bytes, threshold_predictor

httpx = pytest.importorskip("httpx", reason="the extra serve is not installed")
client_module = pytest.importorskip("scanseg.client", reason="the extra serve is not installed")
serving = pytest.importorskip("scanseg.serving", reason="the extra serve is not installed")

HTTP = httpx.Client(verify=False, trust_env=False, timeout=30)
"""One client for all requests, since a new one takes tens of milliseconds."""


@pytest.fixture(scope="module", autouse=True)
def closed_client():
    """Close the connections after the tests."""
    yield
    HTTP.close()


def folders_of(server) -> list[Path]:
    return list(server._folder.iterdir())


def wait_until(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def post(server, content, **params: str):
    return HTTP.post(f"{server.url}/jobs", content=content, params=params)


def ended(server, job: str) -> dict:
    def state():
        return HTTP.get(f"{server.url}/jobs/{job}", params={"wait": 5}).json()

    wait_until(lambda: state()["state"] in ("done", "failed", "cancelled"))
    return state()


def test_label_map_and_volumes_of_a_volume_are_those_of_the_predictor(start, scan, cube, tmp_path):
    server = start()
    with client_module.Client(server.url) as client:
        job = client.predict(scan, tmp_path / "out.nii.gz", model="bright")
        assert client.volumes(job.id) == {"bright": {"voxels": int(cube.sum()), "ml": 0.056}}
        client.download(job.id, tmp_path / "out.nrrd", format="nrrd")
        client.cancel(job.id)
        with pytest.raises(InputError, match="unknown or removed"):
            client.volumes(job.id)
    written = nibabel.load(tmp_path / "out.nii.gz")
    assert np.array_equal(np.asarray(written.dataobj), cube)
    assert np.array_equal(written.affine, np.diag([2.0, 1.0, 0.5, 1.0]))
    assert np.array_equal(read_label_map(tmp_path / "out.nrrd").array[0], cube.T)
    assert folders_of(server) == []


def test_pictures_have_png_label_maps_and_uncertainty(start, tmp_path):
    pixels = np.zeros((20, 30), np.uint8)
    pixels[5:9, 10:20] = 1
    file = io.BytesIO()
    Picture.fromarray(pixels).save(file, "png")
    server = start({"flat": threshold_predictor(2)})
    with client_module.Client(server.url) as client:
        (tmp_path / "in.png").write_bytes(file.getvalue())
        job = client.submit(tmp_path / "in.png", uncertainty=True)
        client.wait(job.id)
        label_map = read_label_map(client.download(job.id, tmp_path / "a.png"))
        assert np.array_equal(label_map.array[0], pixels)
        entropy = client.download(job.id, tmp_path / "e.png", result="entropy")
        assert read_image(entropy).shape == (20, 30)
        assert client.volumes(job.id) == {"bright": {"voxels": 40}}
        with pytest.raises(InputError, match="expected an upload of a DICOM series"):
            client.download(job.id, tmp_path / "s.dcm", result="dicom-seg")


def test_a_series_has_a_dicom_segmentation(start, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    volume = np.zeros((4, 6, 8), np.int16)
    volume[1:3, 2:4, 3:7] = 1
    folder = write_series(tmp_path / "series", volume)
    server = start()
    with client_module.Client(server.url) as client:
        client.predict(folder, tmp_path / "seg.dcm", result="dicom-seg")
    segmentation = pydicom.dcmread(tmp_path / "seg.dcm")
    assert segmentation.SegmentSequence[0].SegmentLabel == "bright"
    assert int(segmentation.pixel_array.sum()) == int(volume.sum())


def test_channels_are_the_files_of_a_form_in_order(start, cube):
    server = start({"two": threshold_predictor(channels=("a", "b"))})
    files = [("image", ("../../b", nifti_bytes(each))) for each in (cube, 0 * cube)]
    answer = HTTP.post(f"{server.url}/jobs", files=files)
    assert ended(server, answer.json()["id"])["state"] == "done"
    answer = HTTP.post(f"{server.url}/jobs", files=[*files, *files])
    assert (answer.status_code, "with one channel each" in answer.json()["error"]) == (400, True)


def test_fifty_uploads_at_once_with_ten_places_lose_nothing(start, held: HeldPredictor, cube):
    server = start({"held": held}, limits={"queue_size": 10})
    content = nifti_bytes(cube)
    first = post(server, content).json()["id"]
    assert held.began.wait(10)
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: post(server, content), range(50)))
    accepted = [each.json()["id"] for each in answers if each.status_code == 202]
    refused = [each for each in answers if each.status_code == 503]
    assert (len(accepted), len(refused)) == (10, 40)
    assert all(int(each.headers["retry-after"]) >= 1 for each in refused)
    assert all("expected a free place" in each.json()["error"] for each in refused)
    assert HTTP.get(f"{server.url}/health").json()["waiting"] == 10
    assert len(folders_of(server)) == 11  # refused uploads leave no files
    held.release.set()
    assert {ended(server, job)["state"] for job in (first, *accepted)} == {"done"}


def test_models_take_turns_on_the_device(start, held: HeldPredictor, cube):
    server = start({"held": held, "bright": threshold_predictor()})
    first = post(server, nifti_bytes(cube), model="held").json()["id"]
    assert held.began.wait(10)
    second = post(server, nifti_bytes(cube), model="bright").json()["id"]
    time.sleep(0.2)
    states = [HTTP.get(f"{server.url}/jobs/{job}").json()["state"] for job in (first, second)]
    assert states == ["running", "waiting"]
    held.release.set()
    assert [ended(server, job)["state"] for job in (first, second)] == ["done", "done"]


def test_clients_wait_for_a_place_and_all_fifty_images_are_segmented(
    start, scan, cube, tmp_path, monkeypatch
):
    server = start(limits={"queue_size": 10})
    monkeypatch.setattr(client_module.connection, "_retry_seconds", lambda response: 0.05)

    def predict(number: int) -> bool:
        path = tmp_path / f"{number}.nii.gz"
        with client_module.Client(server.url) as client:
            client.predict(scan, path)
        return np.array_equal(np.asarray(nibabel.load(path).dataobj), cube)

    with concurrent.futures.ThreadPoolExecutor(25) as pool:
        assert all(pool.map(predict, range(50)))


def test_memory_is_bounded_while_large_uploads_come(start, held: HeldPredictor):
    """Uploads of 40 MB each go to files. Ten in memory would be 400 MB."""
    server = start({"held": held}, limits={"queue_size": 10})

    def upload(_: int) -> int:
        chunks = itertools.chain([b"\x1f\x8b"], itertools.repeat(bytes(100_000), 400))
        return post(server, chunks).status_code

    upload(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        assert set(pool.map(upload, range(10))) == {202}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # KiB


def send_part(server, *, declared: int, content: bytes) -> socket.socket:
    """Send a part of an upload and keep the connection."""
    connection = socket.create_connection(("127.0.0.1", server.port))
    head = f"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: {declared}\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


def test_a_client_that_disconnects_leaves_nothing(start, cube):
    server = start(limits={"queue_size": 2})
    content = nifti_bytes(cube)
    for _ in range(5):
        send_part(server, declared=10 * len(content), content=content).close()
    wait_until(lambda: HTTP.get(f"{server.url}/health").json()["waiting"] == 0)
    wait_until(lambda: folders_of(server) == [])
    assert ended(server, post(server, content).json()["id"])["state"] == "done"


def test_a_slow_upload_ends_and_frees_its_place(start):
    server = start(limits={"upload_seconds": 0.2})
    with send_part(server, declared=100, content=b"abc") as connection:
        connection.settimeout(30)
        assert connection.recv(100).startswith(b"HTTP/1.1 408")
    assert folders_of(server) == []


def test_a_truncated_file_is_a_failed_job(start, cube):
    server = start()
    job = ended(server, post(server, nifti_bytes(cube)[:-40]).json()["id"])
    assert job["state"] == "failed"
    assert "truncated" in job["error"]
    assert str(server._folder) not in job["error"]


def zip_of(num_bytes: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.dcm", "w") as member:
        member.write(bytes(128) + b"DICM")
        for _ in range(num_bytes >> 20):
            member.write(bytes(1 << 20))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(lambda: zip_of(1 << 28), "bytes after decompression", id="large-member"),
        pytest.param(
            lambda: zip_of(1 << 20)[:-22] + 20_001 * b"PK\x01\x02" + b"end", "at most 20000 files", id="many"
        ),
        pytest.param(lambda: zip_of(1 << 20)[:-30], "damaged or truncated", id="truncated"),
        pytest.param(
            lambda: gzip.compress(nibabel.Nifti1Image(np.zeros((200, 200, 200), "u1"), np.eye(4)).to_bytes()),
            "at most 1000000 voxels, got 8000000",
            id="nifti",
        ),
        pytest.param(lambda: png_of((3000, 3000)), "at most 1000000 voxels, got 9000000", id="png"),
    ],
)
def test_bombs_fail_before_they_are_decompressed(start, content, message):
    data = content()
    assert len(data) < 1 << 20
    server = start(limits={"voxels": 1_000_000})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    job = ended(server, post(server, data).json()["id"])
    assert (job["state"], message in job["error"]) == ("failed", True), job
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def png_of(size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Picture.new("L", size).save(file, "png")
    return file.getvalue()


def malformed(number: int, generator: random.Random) -> bytes:
    """Return the bytes of a wrong request."""
    noise = generator.randbytes(generator.randrange(1, 2000))
    form = b"Content-Type: multipart/form-data; boundary=x\r\n"
    length = f"Content-Length: {len(noise)}\r\n".encode()
    host = b"Host: localhost\r\n"
    requests = (
        noise,
        b"GET /jobs/../../etc/passwd HTTP/1.1\r\n" + host + b"\r\n",
        b"GET /jobs/%00%ff HTTP/1.1\r\n" + host + b"\r\n",
        b"POST /jobs HTTP/1.1\r\n" + host + length + b"\r\n" + noise,
        b"POST /jobs HTTP/1.1\r\n" + host + form + length + b"\r\n" + noise,
        b"POST /jobs HTTP/1.1\r\n" + host + form.replace(b"; boundary=x", b"") + length + b"\r\n" + noise,
        b"POST /jobs?mirror=maybe HTTP/1.1\r\n" + host + length + b"\r\n" + noise,
        b"POST /jobs?model=%F0%28 HTTP/1.1\r\n" + host + length + b"\r\n" + noise,
        b"POST /jobs HTTP/1.1\r\n" + host + b"Content-Length: -5\r\n\r\n" + noise,
        b"POST /jobs HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + noise,
        b"GET /jobs/x?wait=nan HTTP/1.1\r\n" + host + b"\r\n",
        b"GET /health HTTP/9.9\r\n" + host + b"\r\n",
        b"GET /models HTTP/1.1\r\nHost: [\r\n\r\n",
        b"GET /models HTTP/1.1\r\n"
        + host
        + b"Cookie: "
        + noise.replace(b"\r", b"").replace(b"\n", b"")
        + b"\r\n\r\n",
        b"DELETE /jobs/" + 3000 * b"a" + b" HTTP/1.1\r\n" + host + b"\r\n",
        b"PATCH /jobs HTTP/1.1\r\n" + host + b"\r\n",
    )
    return requests[number % len(requests)]


def test_two_hundred_malformed_requests_leave_no_traceback_and_no_files(start, cube):
    server = start(limits={"queue_size": 2})
    generator = random.Random(0)
    for number in range(200):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.settimeout(20)
            connection.sendall(malformed(number, generator))
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(65536)
        assert b"Traceback" not in answer
        assert not answer.startswith(b"HTTP/1.1 5")
    wait_until(lambda: folders_of(server) == [])
    assert ended(server, post(server, nifti_bytes(cube)).json()["id"])["state"] == "done"


def test_a_running_and_a_waiting_job_can_be_cancelled(start, held: HeldPredictor, cube):
    server = start({"held": held})
    running, waiting = (post(server, nifti_bytes(cube)).json()["id"] for _ in range(2))
    assert held.began.wait(10)
    for job in (waiting, running):
        assert HTTP.delete(f"{server.url}/jobs/{job}").status_code == 204
    wait_until(lambda: not HTTP.get(f"{server.url}/health").json()["running"])
    wait_until(lambda: folders_of(server) == [])


def test_time_limits_end_jobs_and_remove_results(start, held: HeldPredictor, cube):
    server = start({"held": held, "bright": threshold_predictor()}, limits={"job_seconds": 0.2})
    job = ended(server, post(server, nifti_bytes(cube), model="held").json()["id"])
    assert (job["state"], "expected at most 0.2 s for a job" in job["error"]) == ("failed", True)
    kept = start(limits={"kept_seconds": 0.3})
    done = ended(kept, post(kept, nifti_bytes(cube)).json()["id"])["id"]
    wait_until(lambda: HTTP.get(f"{kept.url}/jobs/{done}").status_code == 404)
    assert folders_of(kept) == []


def test_the_oldest_results_are_removed_above_the_limit_of_bytes(start, cube):
    content = nifti_bytes(cube)
    server = start(limits={"kept_bytes": 3 * len(content)})
    jobs = [ended(server, post(server, content).json()["id"])["id"] for _ in range(4)]
    states = [HTTP.get(f"{server.url}/jobs/{job}").status_code for job in jobs]
    assert states[0] == 404
    assert states[-1] == 200


@pytest.mark.parametrize(
    ("content", "params", "status", "message"),
    [
        (b"", {}, 400, "got no bytes"),
        (b"hello", {}, 415, "another format"),
        (bytes(128) + b"DICM", {}, 415, "Zip the files"),
        (b"NRRD0004\ndata file: /etc/passwd\n", {}, 415, "another format"),
        (bytes(2000), {}, 413, "at most 1000 bytes"),
        (b"x", {"model": "none"}, 400, "expected one of bright"),
        (b"x", {"mirror": "yes"}, 400, "expected true or false"),
    ],
)
def test_refused_uploads_name_the_reason(start, content, params, status, message):
    server = start(limits={"upload_bytes": 1000})
    answer = post(server, content, **params)
    assert (answer.status_code, message in answer.json()["error"]) == (status, True), answer.text
    chunked = HTTP.post(f"{server.url}/jobs", content=iter([content]), params=params)
    assert chunked.status_code == status
    assert folders_of(server) == []


def test_access_needs_the_token_the_name_and_the_origin(start):
    server = start(token="secret")
    answer = HTTP.get(f"{server.url}/models")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert HTTP.get(f"{server.url}/health").status_code == 200
    with client_module.Client(server.url, token="secret") as client:
        assert client.models()[0]["name"] == "bright"
    with client_module.Client(server.url, token="other") as client, pytest.raises(InputError, match="token"):
        client.models()
    headers = {"authorization": "Bearer secret"}
    for wrong in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
        assert HTTP.get(f"{server.url}/models", headers=headers | wrong).status_code == 403
    assert (
        "default-src 'none'"
        in HTTP.get(f"{server.url}/docs", headers=headers).headers["content-security-policy"]
    )


def test_every_route_is_in_the_document(start):
    server = start()
    document = HTTP.get(f"{server.url}/openapi.json").json()
    routes = {
        (route.path, method.lower())
        for route in server.app.routes
        for method in route.methods - {"HEAD"}
        if route.path not in ("/", "/docs", "/openapi.json")
    }
    assert routes == {(path, method) for path, methods in document["paths"].items() for method in methods}
    page = HTTP.get(f"{server.url}/", follow_redirects=True).text
    assert all(path in page for path in document["paths"])
    assert "http://" not in page
    assert "https://" not in page


def test_a_second_server_on_the_port_is_refused(start):
    server = start()
    with pytest.raises(ScansegError, match="another program uses it"):
        serving.Server({}, port=server.port)
    with pytest.raises(UsageError, match="expected a token"):
        serving.Server({}, host="0.0.0.0", port=0)


def test_stopping_cancels_waiting_jobs_and_refuses_new_ones(held: HeldPredictor, cube):
    server = serving.Server({"held": held}, port=0, grace_seconds=10.0)
    with server, client_module.Client(server.url) as client, concurrent.futures.ThreadPoolExecutor(1) as pool:
        running, waiting = (post(server, nifti_bytes(cube)).json()["id"] for _ in range(2))
        assert held.began.wait(10)
        stopping = pool.submit(server.stop)
        wait_until(lambda: HTTP.get(f"{server.url}/health").json()["status"] == "stopping")
        assert post(server, nifti_bytes(cube)).status_code == 503
        assert "server stopped" in str(client.status(waiting).error)
        held.release.set()
        assert client.wait(running).state == "done"
        assert client.volumes(running)["bright"]["voxels"] == int(cube.sum())
        stopping.result(20)
    assert not server._folder.exists()


def test_the_client_and_the_command_need_no_torch(start, scan, cube, tmp_path):
    server = start()
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from scanseg.cli import main\n"
        f"sys.exit(main(['predict', 'bright', {str(scan)!r}, '-o', 'out', '--server', {server.url!r}]))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    assert np.array_equal(np.asarray(nibabel.load(tmp_path / "out" / "scan.nii.gz").dataobj), cube)


def test_the_command_serves_until_a_signal(tmp_path):
    """SIGTERM ends it with 0. It prints its address, and a second one on its port is refused."""
    words = [sys.executable, "-m", "scanseg", "serve", "nuclei", "--device", "cpu", "--port"]
    with subprocess.Popen(
        [*words, "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        line = process.stdout.readline()
        url = line.partition(" at ")[2].split(" ")[0]
        assert json.loads(HTTP.get(f"{url}/models").text)["models"][0]["name"] == "nuclei"
        process.terminate()
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "")
    assert "Traceback" not in errors
    assert "error" not in errors


def test_a_missing_package_and_unknown_limits_are_named(monkeypatch, command):
    with pytest.raises(UsageError, match="voxels, got places"):
        scanseg.serve("nuclei", port=0, device="cpu", limits={"places": 3})
    outcome = command("serve", "nuclei", "--queue-size", "0", "--device", "cpu")
    assert (outcome.code, "expected a number above 0" in outcome.stderr) == (2, True)
    for name in [name for name in sys.modules if name.startswith("scanseg.serving")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    outcome = command("view", "scan.nii.gz")
    assert outcome.code == 2
    assert (
        'expected the package uvicorn, got none. Install it by pip install "scanseg[serve]"' in outcome.stderr
    )


def test_a_second_interrupt_ends_the_wait_for_the_running_job(held: HeldPredictor, cube):
    server = serving.Server({"held": held}, port=0, grace_seconds=60.0)
    begin = time.monotonic()

    def interrupt() -> None:
        post(server, nifti_bytes(cube))
        held.began.wait(10)
        time.sleep(0.5)  # the main thread waits in run_until_stopped then
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: HTTP.get(f"{server.url}/health").json()["status"] == "stopping")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    with raise_on_signals():
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            run_until_stopped(server, "serving")
    thread.join()
    assert time.monotonic() - begin < 30
    assert not server._folder.exists()


def test_options_of_this_machine_are_refused_with_a_server(command):
    outcome = command("predict", "m", "i.png", "-o", "o", "--server", "http://127.0.0.1:1", "--device", "cpu")
    assert (outcome.code, "got --device" in outcome.stderr) == (2, True)
    outcome = command("predict", "m", "i.png", "-o", "o", "--token-file", "t")
    assert (outcome.code, "expected --server" in outcome.stderr) == (2, True)
