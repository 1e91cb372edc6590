"""WebShop's large files are read in pieces: what they hold, where they are damaged, and never whole."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlprm.envs.webshop.official.json_stream import elements, members
from rlprm.errors import DataError
from tests.envs.shared import any_json


@settings(max_examples=100, deadline=None)
@given(st.lists(any_json, max_size=5), st.integers(1, 9), st.sampled_from([None, 1]), st.booleans())
def test_elements_of_any_array(
    tmp_path_factory: pytest.TempPathFactory,
    array: list[Any],
    chunk: int,
    indent: int | None,
    ascii_only: bool,
) -> None:
    path = tmp_path_factory.getbasetemp() / "array.json"
    text = json.dumps(array, indent=indent, ensure_ascii=ascii_only)
    path.write_text(text, encoding="utf-8", errors="surrogatepass" if ascii_only else "replace")
    expected = json.loads(path.read_text(encoding="utf-8"))
    assert list(elements(path, chunk=chunk)) == expected


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=5), any_json, max_size=5), st.integers(1, 9))
def test_members_of_any_object(
    tmp_path_factory: pytest.TempPathFactory, given_object: dict[str, Any], chunk: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "object.json"
    path.write_text(json.dumps(given_object, indent=1))
    assert list(members(path, chunk=chunk)) == list(given_object.items())


@pytest.mark.parametrize(
    "text", ["", "[", "[1,", "[1 2]", "[1]]", "{}", '["a', "[1],", "[,]", "[1,]", "nothing"]
)
def test_what_is_no_array_is_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"a\.json is not the JSON it should be"):
        list(elements(path, chunk=2))


@pytest.mark.parametrize("text", ["", "[]", '{"a"}', '{"a": }', "{1: 2}", '{"a": 1,}', '{"a": 1'])
def test_what_is_no_object_is_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"a\.json is not the JSON it should be"):
        list(members(path, chunk=2))


def test_what_came_before_an_error_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"asin": 1}, {"asin": 2}, {"as')
    found = elements(path, chunk=4)
    assert [next(found), next(found)] == [{"asin": 1}, {"asin": 2}]
    with pytest.raises(DataError):
        next(found)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[{"a": 1}, {"a" 2}]', "element 2, char 16: Expecting ':' delimiter"),
        ("[1, 2] 3", "element 3, char 7: expected 'its end', got '3'"),
        ('[1, "é\n"]', "element 2, char 6: Invalid control character"),
        ("[" * 100_000, "element 1, char 1: maximum recursion depth"),
        (f"[0, {'9' * 5_000}]", "element 2, char 4: Exceeds the limit"),
        ("[1x, 2]", "element 2, char 2: expected ']', got 'x'"),
    ],
)
@pytest.mark.parametrize("chunk", [3, 1 << 20])
def test_damage_is_told_with_its_place(tmp_path: Path, text: str, place: str, chunk: int) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8", newline="")
    with pytest.raises(DataError, match=re.escape(f"a.json is not the JSON it should be: {place}")):
        list(elements(path, chunk=chunk))


def test_damage_in_an_object_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1,\r\n"b": [1, ], "c": 2}', newline="")
    with pytest.raises(DataError, match=r"a\.json .*: element 2, char 19: "):
        list(members(path))


def test_bytes_that_are_not_utf8_are_told_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes('["é", "'.encode() + b"caf\xe9" + b'", "b"]')
    with pytest.raises(DataError, match=r"a\.json is not UTF-8: byte 11, behind element \d: invalid"):
        list(elements(path))
    path.write_bytes(b"[" + b'"abc", ' * 100_000 + b'"\xe9"]')
    with pytest.raises(DataError, match=r"a\.json is not UTF-8: byte 700002, "):
        list(elements(path, chunk=1_000))


def test_a_byte_order_mark_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[1, {"a": 2}]', encoding="utf-8-sig")
    assert list(elements(path)) == [1, {"a": 2}]
    path.write_text('{"a": 2}', encoding="utf-8-sig")
    assert list(members(path)) == [("a", 2)]


def peak_of_reading(path: Path, message: str) -> int:
    """Most bytes that were held while a damaged file was read."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message):
            for _ in elements(path, chunk=10_000):
                pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ('{"asin" "B0"}', "element 1, char 9: Expecting ':' delimiter"),
        ('{"asin": B0}', "element 1, char 10: Expecting value"),
        ('{"asin": "B0"', "element 1, "),
        ("1x", "element 2, char 2: expected"),
        ('{"asin": "B0" "name": "x"}', "element 1, "),
    ],
)
def test_a_damaged_file_is_not_held_in_memory(tmp_path: Path, first: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(f"[{first}, " + ", ".join(['{"asin": "B000000001"}'] * 100_000) + "]")
    assert path.stat().st_size > 2_000_000
    assert peak_of_reading(path, message) < 400_000


def test_an_element_without_an_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlprm.envs.webshop.official.json_stream._LARGEST", 100_000)
    path = tmp_path / "a.json"
    for first, more in (("[", "1, "), ('"', "x"), ("0.", "1")):
        path.write_text("[1, " + first + more * 1_500_000)
        peak = peak_of_reading(path, "element 2, char 4: no end within 100000 characters")
        assert peak < 3_000_000


@settings(max_examples=150, deadline=None)
@given(
    st.lists(any_json, min_size=1, max_size=4), st.integers(1, 30), st.data(), st.sampled_from(["cut", "put"])
)
def test_what_is_read_of_damaged_files_is_what_python_says(
    tmp_path_factory: pytest.TempPathFactory, array: list[Any], chunk: int, data: st.DataObject, how: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    text = json.dumps(array)
    place = data.draw(st.integers(0, len(text) - 1))
    text = text[:place] + (data.draw(st.sampled_from(list('[]{},:"1x\\\x00'))) if how == "put" else "")
    text += json.dumps(array)[place + 1 :] if how == "put" else ""
    path.write_text(text, newline="")
    try:
        expected = json.loads(text)
    except ValueError:
        expected = None
    if isinstance(expected, list):
        assert list(elements(path, chunk=chunk)) == expected
    else:
        with pytest.raises(DataError, match=r"damaged\.json is not the JSON it should be: element \d"):
            list(elements(path, chunk=chunk))
