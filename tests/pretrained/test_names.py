"""Models by folder, name and address."""

import functools
import http.server
import shutil
import stat
import sys
import threading
import types
import zipfile

import pytest

import scanseg
from scanseg.cli import main
from scanseg.errors import InputError, UsageError
from scanseg.pretrained import find_model, list_models, names, save_model
from scanseg.pretrained.fetching import checksum_of


@pytest.fixture
def shipped(model, tmp_path, monkeypatch):
    """A model of the package with the name `discs`."""
    save_model(model, tmp_path / "shipped" / "discs", about="Segments discs.")
    monkeypatch.setattr(names, "_SHIPPED", tmp_path / "shipped")
    return tmp_path / "shipped" / "discs"


@pytest.fixture
def served(tmp_path):
    """Function that serves a file and returns its address."""
    folder = tmp_path / "www"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def serve(path):
        shutil.copy(path, folder)
        return f"http://127.0.0.1:{server.server_port}/{path.name}"

    yield serve
    server.shutdown()
    server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_a_name_is_a_model_of_the_package(shipped, cache, tmp_path, monkeypatch, capsys):
    assert find_model("discs") == shipped
    (listed,) = list_models()
    assert (listed.name, listed.place) == ("discs", "package")
    assert listed.summary.startswith("This model of scanseg segments `disc`")
    monkeypatch.chdir(tmp_path / "shipped")
    assert str(find_model("discs")) == "discs"  # a folder of this name comes first
    assert main(["models"]) == 0
    assert "discs" in capsys.readouterr().out
    assert main(["card", "discs"]) == 0
    assert "It is no medical device." in capsys.readouterr().out


def test_unknown_names(shipped, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "cache" if (tmp_path / "cache").exists() else tmp_path / "shipped" / "discs")
    with pytest.raises(InputError, match=r"disks: no such folder and no model of this name\. .* are discs\."):
        scanseg.load("disks")
    with pytest.raises(InputError, match=r"runs/disks: no such folder"):
        scanseg.load("runs/disks")


def test_an_address_is_fetched_once_and_checked(model, cache, served, tmp_path):
    pytest.importorskip("pooch", reason="the extra hub is not installed")
    archive = tmp_path / "discs.zip"
    save_model(model, archive)
    address = f"{served(archive)}#sha256={checksum_of(archive)}"
    folder = find_model(address)
    assert folder.parent == cache
    assert (
        scanseg.load(address, device="cpu").plan.dataset.name
        == scanseg.load(model, device="cpu").plan.dataset.name
    )
    (tmp_path / "www" / "discs.zip").unlink()
    assert find_model(address) == folder
    assert [each.name for each in list_models() if each.place == "cache"] == [address]

    with pytest.raises(InputError, match=r"has another checksum than 0{64}"):
        find_model(f"{served(archive)}#sha256={'0' * 64}")
    assert not (cache / ("0" * 16)).exists()
    missing = address.replace("discs.zip", "other.zip").replace(checksum_of(archive), "1" * 64)
    with pytest.raises(InputError, match=r"other\.zip: cannot be fetched"):
        find_model(missing)


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("https://example.org/m.zip", "expected the checksum of the archive at the end of the address"),
        ("https://example.org/m.zip#sha256=12", "expected the checksum"),
        (f"http://example.org/m.zip#sha256={'0' * 64}", "expected an address that begins with https://"),
        ("hf:owner", r"expected hf:OWNER/REPOSITORY or hf:OWNER/REPOSITORY@REVISION"),
    ],
)
def test_addresses_that_cannot_be_trusted_are_refused(cache, address, fault):
    with pytest.raises(UsageError, match=fault):
        find_model(address)


def hostile(path, entries, *, link=None):
    with zipfile.ZipFile(path, "w") as archive:
        for name in entries:
            archive.writestr(name, "{}")
        if link is not None:
            entry = zipfile.ZipInfo(link)
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, "/etc/passwd")


@pytest.mark.parametrize(
    ("entries", "link", "fault"),
    [
        (["plan.json", "../evil.json"], None, r"'\.\./evil\.json' lies outside"),
        (["plan.json", "/etc/evil.json"], None, "lies outside"),
        (["plan.json", "weights.pkl"], None, r"'weights\.pkl' is none of"),
        (["plan.json"], "model.safetensors", "is a link"),
        (["other.json"], None, r"it has no plan\.json"),
    ],
)
def test_hostile_archives_leave_nothing(cache, served, tmp_path, entries, link, fault):
    pytest.importorskip("pooch", reason="the extra hub is not installed")
    archive = tmp_path / "hostile.zip"
    hostile(archive, entries, link=link)
    with pytest.raises(InputError, match=fault):
        find_model(f"{served(archive)}#sha256={checksum_of(archive)}")
    assert not [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert not list(tmp_path.glob("evil*"))


def test_an_archive_that_is_none(cache, served, tmp_path):
    pytest.importorskip("pooch", reason="the extra hub is not installed")
    archive = tmp_path / "text.zip"
    archive.write_text("no archive")
    with pytest.raises(InputError, match=r"the archive is damaged .*Nothing was kept"):
        find_model(f"{served(archive)}#sha256={checksum_of(archive)}")


def test_a_repository_of_the_hub(model, cache, tmp_path, monkeypatch):
    save_model(model, tmp_path / "snapshot")
    asked = []

    def snapshot_download(name, *, revision, allow_patterns, cache_dir):
        asked.append((name, revision, tuple(allow_patterns)))
        if name == "owner/missing":
            raise OSError("404 not found\nlong text")
        return str(tmp_path / ("snapshot" if name == "owner/discs" else "www"))

    errors = types.ModuleType("huggingface_hub.errors")
    errors.HfHubHTTPError = errors.LocalEntryNotFoundError = type("HfHubHTTPError", (Exception,), {})
    hub = types.ModuleType("huggingface_hub")
    hub.snapshot_download, hub.errors = snapshot_download, errors
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    assert find_model("hf:owner/discs@v1") == tmp_path / "snapshot"
    assert asked == [("owner/discs", "v1", ("*.json", "*.safetensors", "README.md"))]
    with pytest.raises(InputError, match=r"cannot be fetched \(404 not found\)"):
        find_model("hf:owner/missing")
    with pytest.raises(InputError, match="the repository is no shared model"):
        find_model("hf:owner/text")


def test_without_the_extra(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for address in (f"https://example.org/m.zip#sha256={'0' * 64}", "hf:owner/discs"):
        with pytest.raises(UsageError, match=r'pip install "scanseg\[hub\]"'):
            find_model(address)


def test_the_commands_save_and_fetch(model, cache, served, tmp_path, capsys):
    pytest.importorskip("pooch", reason="the extra hub is not installed")
    archive = tmp_path / "discs.zip"
    assert main(["models", "save", str(model), "-o", str(archive), "--weight-type", "float16"]) == 0
    said = capsys.readouterr().out
    assert f"#sha256={checksum_of(archive)}" in said
    assert main(["models", "fetch", f"{served(archive)}#sha256={checksum_of(archive)}"]) == 0
    assert main(["models", "fetch", "discs"]) == 2
    assert main(["card", str(model), "-o", str(tmp_path / "CARD.md")]) == 0
    assert (tmp_path / "CARD.md").read_text().startswith("# discs")
    assert main(["card", str(model), "-o", str(tmp_path / "CARD.md")]) == 2
