"""WebShop's own data: its products, its files, its goals in upstream's order."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlprm.envs import webshop
from rlprm.envs.webshop import Option
from rlprm.envs.webshop.expert import query_of
from rlprm.envs.webshop.official import store
from rlprm.envs.webshop.official.files import find_files
from rlprm.envs.webshop.official.goals import GOAL_KINDS
from rlprm.envs.webshop.official.json_stream import members
from rlprm.envs.webshop.official.records import product_from
from rlprm.envs.webshop.official.store import open_store
from rlprm.envs.webshop.reward import RULES
from rlprm.envs.webshop.tasks import shop_and_goal
from rlprm.envs.webshop.title_nouns import by_rules
from rlprm.errors import ConfigError, DataError
from rlprm.types import End, Split
from tests.envs.shared import any_json, one_line_at_most, shared_data
from tests.toys.webshop import COLORS, SIZES, options_of, raw_product, small_data, write_official

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
    st.dictionaries(st.sampled_from([*raw_product("B1")]), any_json, max_size=2),
    st.dictionaries(st.sampled_from([*ENTRY]), any_json, max_size=2) | any_json,
    any_json,
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
    for found, kind in itertools.product(opened, GOAL_KINDS):
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


def test_agentgym_makes_a_human_goal_of_each_price_cap(tmp_path: Path) -> None:
    """Caps are the next four multiples of 10 dollars up to 990; with fewer than two there are four goals."""
    prices = {"B1": "$30.00", "B2": "$965.00", "B3": "$975.00", "B4": "$985.00"}
    caps = {"B1": [40, 50, 60, 70], "B2": [970, 980, 990], "B3": [980, 990], "B4": [1_000_000] * 4}
    spoken = {
        asin: [{"instruction": f"i want {asin}.", "instruction_attributes": ["a"], "instruction_options": []}]
        for asin in prices
    }
    raws = [raw_product(asin, pricing=pricing) for asin, pricing in prices.items()]
    data = str(write_official(tmp_path, raws, {}, spoken))
    opened = open_store(data)
    assert {kind: opened.goals(kind) for kind in GOAL_KINDS} == {
        "synthetic": 0, "human": 4, "human_agentgym": 13
    }  # fmt: skip
    expected = [(asin, cap) for asin in prices for cap in caps[asin]]
    random.Random(233).shuffle(expected)
    goals = [opened.goal("human_agentgym", number) for number in range(13)]
    assert [(g.request.product.asin, int(g.request.price_cap)) for g in goals] == expected
    for goal in goals:
        asin, cap = goal.request.product.asin, goal.request.price_cap
        clause = "" if asin == "B4" else f", and price lower than {cap:.2f} dollars"
        assert goal.instruction == f"i want {asin}{clause}"
    tasks = webshop.tasks(Split.TEST, 0, 13, data=data, goals="human_agentgym")
    assert [shop_and_goal(task)[1] for task in tasks] == goals
    assert {task.id for task in tasks}.isdisjoint(
        task.id for task in webshop.tasks(Split.TEST, 0, 4, data=data, goals="human")
    )


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
