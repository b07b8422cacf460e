"""JSON documents are read with limits, and every refusal names the file in one short line."""

import json
from pathlib import Path

import pytest

from scanseg.documents import MOST_DIGITS, MOST_LEVELS, JSONLimitError, NotJSONError, parse_json, read_json
from scanseg.errors import InputError
from scanseg.messages import shortened
from scanseg.specs import Plan, Report, RunRecord, StoreIndex


def nested(levels: int, opening: str = "[", closing: str = "]") -> str:
    return opening * levels + closing * levels


REFUSED = {
    "empty": (b"", "expected JSON"),
    "blank": (b" \n", "the text is empty"),
    "cut short": (b'{"a": [1, 2', "expected JSON"),
    "text after the end": (b"{} {}", "Extra data"),
    "a thousand levels": (nested(1000).encode(), "at most 64 levels"),
    "a hundred thousand levels": (nested(100_000).encode(), "at most 64 levels"),
    "levels of objects": (('{"a":' * 999 + "1" + "}" * 999).encode(), "at most 64 levels"),
    "5000 digits": (b'{"a": ' + b"9" * 5000 + b"}", "at most 100 digits, got 5000"),
    "a negative number of 5000 digits": (b"[-" + b"9" * 5000 + b"]", "at most 100 digits"),
    "a number beyond floats": (b"[1e999]", "beyond the range"),
    "NaN": (b'{"a": NaN}', "expected a finite number, got NaN"),
    "Infinity": (b"[-Infinity]", "expected a finite number, got -Infinity"),
    "a repeated key": (b'{"a": 1, "a": 2}', 'each key once, got "a"'),
    "a repeated inner key": (b'[{"b": {"c": 1, "c": 1}}]', 'each key once, got "c"'),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "expected UTF-8 text, got UTF-16"),
    "Latin-1": ('{"a": "\xfc"}'.encode("latin-1"), "got byte 0xfc at 7"),
    "NUL bytes": (b"\0" * 100, "expected JSON"),
    "NUL in a text": (b'{"a": "x\\u0000y"}', "without NUL"),
    "NUL in a key": (b'{"\\u0000": 1}', "without NUL"),
    "a lone surrogate": (b'{"a": "\\ud800"}', "whole characters"),
    "a lone surrogate in a key": (b'{"\\udfff": 1}', "whole characters"),
    "rubbish": (bytes(range(256)), "expected UTF-8 text"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("read", [read_json, Plan.read, StoreIndex.read, RunRecord.read])
def test_refusals_name_the_file_in_one_line(tmp_path: Path, name: str, read: object) -> None:
    content, words = REFUSED[name]
    file = tmp_path / "document.json"
    file.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(file)  # type: ignore[operator]
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert words in message
    assert "\n" not in message
    assert len(message) < 300 + len(str(file))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xef\xbb\xbf[1]", [1]),
        ('{"\xfc": "\U0001f600"}'.encode(), {"\xfc": "\U0001f600"}),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (nested(MOST_LEVELS).encode(), json.loads(nested(MOST_LEVELS))),
        (b"9" * MOST_DIGITS, int("9" * MOST_DIGITS)),
        (b"null", None),
        (b"1e308", 1e308),
    ],
)
def test_documents_at_the_limits_are_read(tmp_path: Path, content: bytes, expected: object) -> None:
    (tmp_path / "document.json").write_bytes(content)
    assert read_json(tmp_path / "document.json") == expected


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.json", tmp_path / ("x" * 300), Path("a\0b")):
        with pytest.raises(InputError, match="cannot be read"):
            read_json(path)


def test_a_huge_file_is_refused_before_it_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanseg.documents.MOST_BYTES", 2**20)
    with (tmp_path / "document.json").open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(InputError, match=r"document\.json: expected at most 1 MiB, got more"):
        read_json(tmp_path / "document.json")


def test_texts_that_are_no_json_differ_from_limits() -> None:
    for text in ("auto", "NaN", "", "[1", "'a'"):
        with pytest.raises(NotJSONError):
            parse_json(text)
    for text in ("1" * 101, nested(65), '{"a": 1, "a": 1}', "1e999", '"\\u0000"'):
        with pytest.raises(JSONLimitError):
            parse_json(text)


@pytest.mark.parametrize(
    "content",
    [
        {"recipe": "x" * 5000},
        {"x" * 5000: 1},
        {f"key {number}": "y" * 5000 for number in range(500)},
        {"dataset": {"labels": {"x" * 5000: -1}}},
        {"network": {"kind": "z" * 5000}},
        {"sampling": {"patch_size": [-1] * 5000}},
        ["x" * 5000],
        "x" * 5000,
    ],
)
def test_long_values_and_many_faults_are_cut(tmp_path: Path, content: object) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        Plan.read(file)
    assert str(caught.value).startswith(f"{file}: not a valid Plan: ")
    assert len(str(caught.value)) < 2000
    assert "\n" not in str(caught.value)


def test_at_most_twenty_faults_are_listed(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(json.dumps({f"key_{number}": number for number in range(100)}))
    with pytest.raises(InputError, match=r"; and \d+ more$") as caught:
        Report.read(file)
    assert str(caught.value).count("Field required") + str(caught.value).count("Extra inputs") <= 20


def test_a_wrong_value_is_quoted_shortened(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"status": "x" * 5000}))
    with pytest.raises(InputError, match=r"status: Input should be .*, not \"xxx+\.\.\.[ ;]"):
        RunRecord.read(file)


def test_shortened_texts_are_one_printable_line() -> None:
    assert shortened("a\nb\tc\0", 10) == "a b c "
    assert shortened("a" * 100, 10) == "aaaaaaa..."
    assert len(shortened("\ud800" * 100)) == 60
