"""WebShop's own data: reading it in pieces, its goals in upstream's order, and what is kept on disk."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlprm.envs import webshop
from rlprm.envs.webshop import Option, store
from rlprm.envs.webshop.expert import query_of
from rlprm.envs.webshop.nouns import by_rules
from rlprm.envs.webshop.official import find_files, fingerprint, product_from
from rlprm.envs.webshop.reward import RULES
from rlprm.envs.webshop.store import open_store
from rlprm.envs.webshop.streaming import elements, members
from rlprm.envs.webshop.tasks import shop_and_goal
from rlprm.errors import ConfigError, DataError
from rlprm.types import End, Split
from tests.envs.shared import one_line_at_most, shared_data
from tests.toys.webshop import COLORS, SIZES, options_of, raw_product, small_data, write_official

# ------------------------------------------------------------------------------ reading in pieces

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(_JSON, max_size=5), st.integers(1, 9), st.sampled_from([None, 1]), st.booleans())
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
@given(st.dictionaries(st.text(max_size=5), _JSON, max_size=5), st.integers(1, 9))
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
    monkeypatch.setattr("rlprm.envs.webshop.streaming._LARGEST", 100_000)
    path = tmp_path / "a.json"
    for first, more in (("[", "1, "), ('"', "x"), ("0.", "1")):
        path.write_text("[1, " + first + more * 1_500_000)
        peak = peak_of_reading(path, "element 2, char 4: no end within 100000 characters")
        assert peak < 3_000_000


@settings(max_examples=150, deadline=None)
@given(
    st.lists(_JSON, min_size=1, max_size=4), st.integers(1, 30), st.data(), st.sampled_from(["cut", "put"])
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


# ------------------------------------------------------------------------------ products


def test_a_product_as_upstream_makes_it() -> None:
    raw = raw_product(
        "B000000001",
        "Norvia Boots",
        customization_options=options_of({"Color": [" Navy/White ", "RED"], "Size": ["9"], "Style": None}),
    )
    made = product_from(raw, {"attributes": ["water resistant"]})
    assert made == webshop.Product(
        asin="B000000001",
        title="Norvia Boots",
        description="Boots for rain.",
        bullets=("water resistant", "made to last"),
        price=49.99,
        price_tag="$49.99",
        options=(Option("color", ("navy | white", "red")), Option("size", ("9",))),
        attributes=("water resistant",),
        category="fashion",
        query="hiking boots",
        product_category="Shoes › Outdoor › Hiking Boots",
    )


@pytest.mark.parametrize(
    ("pricing", "low", "high", "tag"),
    [
        ("$9.99", 9.99, 9.99, "$9.99"),
        ("$1,299.00", 1299.0, 1299.0, "$1299.0"),
        ("$10.50 - $20.00", 10.5, 20.0, "$10.5 to $20.0"),
        ("$1.00$2.00$3.00", 1.0, 2.0, "$1.0 to $2.0"),
        ("", 100.0, 100.0, "$100.0"),
        (None, 100.0, 100.0, "$100.0"),
        ("unknown", 100.0, 100.0, "$100.0"),
        ("$.", 100.0, 100.0, "$100.0"),
    ],
)
def test_prices(pricing: str | None, low: float, high: float, tag: str) -> None:
    made = product_from(raw_product("B1", pricing=pricing), None)
    assert low <= made.price <= high
    assert made.price_tag == tag
    assert made.price == product_from(raw_product("B1", pricing=pricing), None).price


def test_what_is_left_out_of_a_product() -> None:
    raw = raw_product("B1", small_description="one line", full_description=None, customization_options=None)
    made = product_from(raw, None)
    assert (made.bullets, made.description, made.options) == (("one line",), "", ())
    assert made.attributes == ("DUMMY_ATTR",)


@pytest.mark.parametrize(
    "fields",
    [
        {"customization_options": {"color": [{}]}},
        {"customization_options": [1]},
        {"customization_options": {"color": [{"value": "\ud800"}]}},
        {"pricing": "$" + "9" * 400},
        {"pricing": 5},
        {"name": {"a": 1}},
        {"name": "boots \ud800"},
        {"query": True},
        {"small_description": ["fine", 1]},
    ],
)
def test_a_damaged_product_is_said(fields: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="not a WebShop product: 'B1'"):
        product_from(raw_product("B1", **fields), None)
    raw = raw_product("B1")
    del raw["name"]
    with pytest.raises(DataError, match="KeyError"):
        product_from(raw, None)


def test_an_identifier_of_half_a_character_is_said(tmp_path: Path) -> None:
    data = write_official(tmp_path, [raw_product("B\ud800")], {"B\ud800": {}})
    with pytest.raises(DataError, match="half a surrogate pair"):
        open_store(str(data))


ENTRY = {"attributes": ["warm"], "instruction": "Find me boots", "instruction_attributes": ["warm"]}


@pytest.mark.parametrize(
    ("change", "received"),
    [
        ({"attributes": [1, 2]}, r"\[1, 2\], allowed: a list of texts"),
        ({"attributes": "warm"}, "'warm', allowed: a list of texts"),
        ({"attributes": ["\ud800"]}, "half a surrogate pair"),
        ({"instruction_attributes": [1]}, r"\[1\], allowed: a list of texts"),
        ({"instruction_attributes": [None]}, r"\[None\], allowed: a list of texts"),
        ({"instruction_attributes": "warm"}, "'warm', allowed: a list of texts"),
        ({"instruction": 5}, "5, allowed: a text"),
        ({"instruction": ["a"]}, r"\['a'\], allowed: a text"),
    ],
)
def test_a_damaged_entry_is_said_when_the_index_is_built(
    tmp_path: Path, change: dict[str, Any], received: str
) -> None:
    data = write_official(tmp_path, [raw_product("B000000001")], {"B000000001": ENTRY | change})
    with pytest.raises(DataError, match=f"WebShop product: 'B000000001'.*{received}"):
        open_store(str(data))


@pytest.mark.parametrize(
    "change",
    [{"instruction": None}, {"instruction": ""}, {"instruction_attributes": None}, {"attributes": None}],
)
def test_an_entry_may_lack_what_is_not_there(tmp_path: Path, change: dict[str, Any]) -> None:
    data = write_official(tmp_path, [raw_product("B000000001")], {"B000000001": ENTRY | change})
    assert open_store(str(data)).goals("synthetic") == ("attributes" in change)


@pytest.mark.parametrize(
    "entries",
    [
        5,
        "warm",
        {"instruction": "boots"},
        [{"instruction": 5, "instruction_attributes": ["warm"], "instruction_options": []}],
        [{"instruction": "boots", "instruction_attributes": "warm", "instruction_options": []}],
        [
            {
                "instruction": "boots",
                "instruction_attributes": ["warm"],
                "instruction_options": {"color": "red"},
            }
        ],
        [{"instruction": "boots", "instruction_attributes": ["warm"], "instruction_options": [None]}],
    ],
)
def test_damaged_human_instructions_are_said(tmp_path: Path, entries: Any) -> None:
    data = write_official(tmp_path, [raw_product("B000000001")], {}, {"B000000001": entries})
    with pytest.raises(DataError, match="not human instructions for a WebShop product: 'B000000001'"):
        open_store(str(data))


def test_more_combinations_than_anybody_holds_are_refused(tmp_path: Path) -> None:
    options = options_of({f"option {n}": [f"value {v}" for v in range(10)] for n in range(8)})
    raw = raw_product("B000000001", customization_options=options)
    data = write_official(tmp_path, [raw], {"B000000001": ENTRY})
    with pytest.raises(DataError, match="'B000000001': its options have 100000000 combinations"):
        open_store(str(data))


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.sampled_from([*raw_product("B1")]), _JSON, max_size=2),
    st.dictionaries(st.sampled_from([*ENTRY]), _JSON, max_size=2) | _JSON,
    _JSON,
)
def test_any_fields_are_a_shop_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any], entry: Any, human: Any
) -> None:
    folder = tmp_path_factory.mktemp("shop")
    given_entry = ENTRY | entry if isinstance(entry, dict) else entry
    write_official(
        folder,
        [raw_product("B1") | fields],
        {"B1": given_entry},
        {"B1": human, fields.get("asin", ""): human} if isinstance(fields.get("asin", ""), str) else None,
    )
    opened: list[store.Store] = []
    assert one_line_at_most(lambda: opened.append(open_store(str(folder))))
    for found, kind in itertools.product(opened, ("synthetic", "human")):
        for number in range(found.goals(kind)):
            goal = found.goal(kind, number)
            assert goal.instruction.encode()
            (task,) = webshop.tasks(Split.TEST, number, 1, data=str(folder), goals=kind)
            env = webshop.make(task, end=End.DECLARED)
            env.reset()
            env.step(f"search[{goal.request.product.title}]")
            env.step(f"click[{goal.request.product.asin}]")
            env.step("click[buy now]")
            assert 0 <= env.outcome().score <= 1


# ------------------------------------------------------------------------------ files


def test_files_are_found_in_a_folder_or_beside_the_products(tmp_path: Path) -> None:
    folder = write_official(tmp_path / "data", [], {}, {})
    by_folder = find_files(str(folder))
    assert by_folder == find_files(str(folder / "items_shuffle_1000.json"))
    assert by_folder.human == folder / "items_human_ins.json"
    write_official(folder, [], {}, ending="")
    with pytest.raises(ConfigError, match=r"items_shuffle\.json, items_shuffle_1000\.json"):
        find_files(str(folder))
    assert find_files(str(folder / "items_shuffle.json")).attributes == folder / "items_ins_v2.json"


def test_another_file_than_that_of_the_products_is_refused(tmp_path: Path) -> None:
    folder = write_official(tmp_path, [], {}, {})
    for name in ("items_ins_v2_1000.json", "items_human_ins.json"):
        with pytest.raises(ConfigError, match=f"{name}' with none, allowed: a folder with one items_shuffle"):
            find_files(str(folder / name))
    (tmp_path / "inner" / "items_shuffle.json").mkdir(parents=True)
    with pytest.raises(ConfigError, match="with none"):
        find_files(str(tmp_path / "inner"))


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = str(write_official(tmp_path, [], {}))

    def refuse(self: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigError, match=r"items_shuffle_1000\.json cannot be read: Permission denied"):
        open_store(data)


@pytest.mark.parametrize("path", ["", "x" * 5_000, "~no-such-user/x", "a\x00b"])
def test_what_is_no_path_is_named(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError, match="webshop data: got"):
        webshop.tasks(Split.TEST, 0, 1, data=path)
    data = str(write_official(tmp_path, [], {}))
    with pytest.raises(ConfigError, match="webshop cache: got"):
        webshop.tasks(Split.TEST, 0, 1, data=data, cache=path)


def test_data_and_cache_in_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    small_data(tmp_path / "shop")
    (task,) = webshop.tasks(Split.TEST, 0, 1, data="~/shop", cache="~/kept")
    assert (task.spec["data"], task.spec["cache"]) == ("~/shop", "~/kept")
    assert webshop.make(task, end=End.DECLARED).reset().startswith("WebShop [SEP] ")
    assert len(list((tmp_path / "kept").iterdir())) == 1
    assert not (tmp_path / "shop" / ".rlprm-webshop").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"asin": "B1", "name": "café"}]'.encode("latin-1"), "UTF-8: byte 28, "),
        (b'[{"asin": ' + b"[" * 100_000, "the JSON it should be: element 1, .*recursion"),
        (
            b"[" + b'{"a": 1}, ' * 10 + b'{"a" 1}]',
            "the JSON it should be: element 11, char 106: Expecting ':' delimiter",
        ),
    ],
)
def test_a_damaged_product_file_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    data = write_official(tmp_path, [], {})
    (data / "items_shuffle_1000.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"items_shuffle_1000\.json is not {message}"):
        webshop.tasks(Split.TEST, 0, 1, data=str(data))


def test_files_with_a_byte_order_mark(tmp_path: Path) -> None:
    data = small_data(tmp_path, 3, human=True)
    for path in data.glob("*.json"):
        path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    opened = open_store(str(data))
    assert (opened.documents, opened.goals("synthetic"), opened.goals("human")) == (3, 12, 3)


def test_missing_files_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="with none"):
        find_files(str(tmp_path))
    (tmp_path / "items_shuffle_1000.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"items_ins_v2_1000\.json"):
        find_files(str(tmp_path))


# ------------------------------------------------------------------------------ goals


def test_goals_are_products_times_options_in_upstreams_order(tmp_path: Path) -> None:
    opened = open_store(str(small_data(tmp_path)))
    caps, expected = random.Random(233), []
    for n in range(0, 30, 2):
        price = n + 5
        cap = max(caps.sample([c for c in range(10, 1000, 10) if c > price][:4], 2))
        for color, size in itertools.product(COLORS, SIZES):  # options by name
            text = f"Find me boots number{n} with color: {color}, and size: {size}"
            expected.append(
                (f"{text}, and price lower than {cap}.00 dollars", (("color", color), ("size", size)), cap)
            )
    random.Random(233).shuffle(expected)
    assert opened.goals("synthetic") == len(expected) == 15 * 6
    goals = [opened.goal("synthetic", number) for number in range(len(expected))]
    assert [(g.instruction, g.request.options, g.request.price_cap) for g in goals] == expected
    assert {g.request.attributes for g in goals} == {("water resistant",)}


def test_human_goals(tmp_path: Path) -> None:
    data = str(small_data(tmp_path, human=True))
    opened = open_store(data)
    assert opened.goals("human") == 30
    goals = [opened.goal("human", number) for number in range(30)]
    assert [g.request.options for g in goals] == [(("", "red"),)] * 30
    order = list(range(30))
    random.Random(233).shuffle(order)
    assert [g.instruction.split(",")[0] for g in goals] == [f"i want boots number{n}" for n in order]
    assert all(g.request.price_cap > g.request.product.price for g in goals)
    assert open_store(str(small_data(tmp_path / "without"))).goals("human") == 0


def test_a_product_beyond_the_caps_has_none(tmp_path: Path) -> None:
    raw = raw_product("B000000001", pricing="$2,000.00")
    entry = {"attributes": ["warm"], "instruction": "Find me boots", "instruction_attributes": ["warm"]}
    goal = open_store(str(write_official(tmp_path, [raw], {"B000000001": entry}))).goal("synthetic", 0)
    assert (goal.instruction, goal.request.price_cap) == ("Find me boots", 1_000_000.0)


def test_products_that_upstream_does_not_take(tmp_path: Path) -> None:
    asins = ["B000000001", "nan", "B0000000001", "B000000001", "B000000002"]
    data = write_official(tmp_path, [raw_product(asin, f"boots {n}") for n, asin in enumerate(asins)], {})
    opened = open_store(str(data))
    assert opened.documents == 2
    assert [opened.shop.product(place).title for place in range(2)] == ["boots 0", "boots 4"]
    assert open_store(str(data), products=4).documents == 1
    assert open_store(str(data), products=4).mark != opened.mark


def test_splits_are_upstreams(tmp_path: Path) -> None:
    data = str(small_data(tmp_path, 60, colors=27))  # 30 · 27 · 2 goals
    assert open_store(data).goals("synthetic") == 1620
    lists = {
        split: webshop.tasks(split, 0, n, data=data)
        for split, n in (("test", 500), ("dev", 1000), ("train", 120))
    }
    numbers = [task.spec["goal"] for split in ("test", "dev", "train") for task in lists[split]]
    assert numbers == list(range(1620))
    assert lists["test"][7].id.startswith("synthetic-7-")
    assert webshop.tasks(Split.DEV, 3, 2, data=data) == lists["dev"][3:5]
    for split, n in (("test", 500), ("dev", 1000), ("train", 120)):
        with pytest.raises(ConfigError, match=f"the {split} split has {n} of the 1620 synthetic goals"):
            webshop.tasks(split, n, 1, data=data)
    with pytest.raises(ConfigError, match="at least 0, got -1 and 1"):
        webshop.tasks(Split.DEV, -1, 1, data=data)
    with pytest.raises(ConfigError, match="products: got 0, allowed: 1 or more, or null"):
        webshop.tasks(Split.DEV, 0, 1, data=data, products=0)


@pytest.mark.parametrize("rule", RULES)
def test_an_episode_over_official_data(tmp_path: Path, rule: str) -> None:
    (task,) = webshop.tasks(Split.TEST, 4, 1, data=str(small_data(tmp_path)), reward=rule)
    request = shop_and_goal(task)[1].request
    env = webshop.make(task, end=End.DECLARED)
    assert env.reset().startswith("WebShop [SEP] Instruction: [SEP] Find me boots number")
    found = env.step(f"search[{request.product.title}]").observation
    assert f"Page 1 (Total results: 30) [SEP] Next > [SEP] {request.product.asin} [SEP] Norvia boots" in found
    env.step(f"click[{request.product.asin}]")
    for _, value in request.options:
        assert env.step(f"click[{value}]").valid
    assert env.step("click[buy now]").reward == 1.0
    assert webshop.demonstrate(task, end=End.DECLARED)[-1] == "click[Buy Now]"


# ------------------------------------------------------------------------------ what is kept


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where stores were built, in order."""
    folders: list[Path] = []
    build = store.build

    def counted(files: Any, products: int | None, folder: Path) -> None:
        folders.append(folder)
        build(files, products, folder)

    monkeypatch.setattr(store, "build", counted)
    store._opened.cache_clear()
    return folders


def test_an_index_is_built_once(tmp_path: Path, built: list[Path]) -> None:
    data = str(small_data(tmp_path))
    first = open_store(data)
    store._opened.cache_clear()
    again = open_store(data)
    assert built == [first.folder]
    assert first.folder.parent == tmp_path / ".rlprm-webshop"
    assert again.shop.index.search("number7") == first.shop.index.search("number7") != ()
    assert sorted(path.name for path in first.folder.iterdir()) == [
        *(
            "data.npy",
            "human.npy",
            "indices.npy",
            "indptr.npy",
            "meta.json",
            "products.sqlite",
            "synthetic.npy",
        )
    ]


def test_other_data_and_settings_have_another_index(tmp_path: Path, built: list[Path]) -> None:
    data = small_data(tmp_path)
    first = open_store(str(data))
    open_store(str(data), products=5)
    small_data(tmp_path, 31)
    assert open_store(str(data)).documents == 31
    assert len(set(built)) == 3
    os.utime(data / "items_shuffle_1000.json", ns=(1, 1))
    store._opened.cache_clear()
    assert open_store(str(data)).mark == fingerprint_mark(data)
    assert len(set(built)) == 4
    assert first.documents == 30


def fingerprint_mark(data: Path) -> str:
    """The mark of data that only changed their time is the same."""
    assert fingerprint(find_files(str(data))) == fingerprint(find_files(str(data)))
    return open_store(str(data)).mark


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, built: list[Path]) -> None:
    data = small_data(tmp_path)
    whole = (data / "items_shuffle_1000.json").read_text()
    (data / "items_shuffle_1000.json").write_text(whole[:-100])
    with pytest.raises(DataError, match="items_shuffle_1000"):
        open_store(str(data))
    assert list((tmp_path / ".rlprm-webshop").iterdir()) == []
    (data / "items_shuffle_1000.json").write_text(whole)
    assert open_store(str(data)).documents == 30
    assert len(list((tmp_path / ".rlprm-webshop").iterdir())) == 1


def test_of_two_builds_at_once_the_first_is_kept(tmp_path: Path, built: list[Path]) -> None:
    first = open_store(str(small_data(tmp_path)))
    before = (first.folder / "meta.json").stat().st_ino
    files = find_files(str(tmp_path))
    store.build(files, None, first.folder)
    assert (first.folder / "meta.json").stat().st_ino == before
    assert len(list(first.folder.parent.iterdir())) == 1


def test_a_cache_folder_can_be_given(tmp_path: Path) -> None:
    data = small_data(tmp_path / "data")
    assert open_store(str(data), cache=str(tmp_path / "cache")).folder.parent == tmp_path / "cache"
    assert not (data / ".rlprm-webshop").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        open_store(str(data), cache=str(tmp_path / "file" / "cache"))


def test_a_disk_that_is_full_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rlprm.envs.webshop.build.IndexBuilder.finish", full)
    with pytest.raises(ConfigError, match=r"webshop cache: .* cannot be written .*No space left on device"):
        open_store(str(small_data(tmp_path)))
    assert list((tmp_path / ".rlprm-webshop").iterdir()) == []


def test_data_in_a_read_only_place_use_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = small_data(tmp_path / "data")
    monkeypatch.setattr(store.os, "access", lambda *_: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert open_store(str(data)).folder.parent == tmp_path / "home" / "rlprm" / "webshop"


def test_a_forked_process_reads_for_itself(tmp_path: Path) -> None:
    opened = open_store(str(small_data(tmp_path)))
    assert opened.shop.product(0).asin == "B000000000"
    receiving, sending = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(
        target=lambda: sending.send((opened.shop.product(3).asin, opened.shop.index.search("number4")))
    )
    child.start()
    asin, found = receiving.recv()
    child.join()
    assert (asin, found) == ("B000000003", (4,))
    assert opened.shop.product(5).asin == "B000000005"


def test_building_does_not_hold_the_file_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    products = [raw_product(f"B{n:09}", full_description="rain" + "." * 28_000) for n in range(300)]
    data = write_official(tmp_path, products, {})
    size = (data / "items_shuffle_1000.json").stat().st_size
    assert size > 8_000_000
    del products
    tracemalloc.start()
    try:
        assert open_store(str(data)).documents == 300
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.75 * size


# ------------------------------------------------------------------------------ published files


def test_the_published_attributes_file(tmp_path: Path) -> None:
    """1,000 entries, of which 415 have an instruction; made into goals with products written here."""
    path = shared_data("webshop") / "items_ins_v2_1000.json"
    entries = json.loads(path.read_text(encoding="utf-8"))
    assert dict(members(path, chunk=1000)) == entries
    products = [
        raw_product(asin, f"thing {n}", customization_options=options_of({"color": COLORS, "size": SIZES}))
        for n, asin in enumerate(entries)
    ]
    opened = open_store(str(write_official(tmp_path, products, entries)))
    assert (opened.documents, opened.goals("synthetic")) == (1000, 415 * 6)
    goal = opened.goal("synthetic", 0)
    entry = entries[goal.request.product.asin]
    assert goal.instruction.startswith(entry["instruction"] + " with color: ")
    assert goal.request.attributes == tuple(entry["instruction_attributes"])
    assert goal.request.product.attributes == tuple(entry["attributes"])
    assert len(webshop.tasks(Split.TRAIN, 0, 415 * 6 - 1500, data=str(tmp_path))) == 990


def test_published_human_instructions(tmp_path: Path) -> None:
    spoken = json.loads((shared_data("webshop") / "human_goals.json").read_text(encoding="utf-8"))
    assert len(spoken) == 12_087
    asins = [f"B{n:09}" for n in range(400)]
    given_by = {
        asin: [{"instruction": text, "instruction_attributes": ["warm"], "instruction_options": []}]
        for asin, text in zip(asins, spoken, strict=False)
    }
    data = write_official(tmp_path, [raw_product(asin) for asin in asins], {}, given_by)
    opened = open_store(str(data))
    assert opened.goals("human") == 400
    said = {opened.goal("human", n).instruction.rpartition(", and price lower than ")[0] for n in range(400)}
    assert said == {text.strip(".") for text in spoken[:400]}
    assert all(query_of(text) for text in spoken)
    assert sum(bool(by_rules(text)) for text in spoken) > 0.99 * len(spoken)
