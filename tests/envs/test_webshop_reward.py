"""WebShop: the reward, by numbers worked out from its formula."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlprm.envs.webshop import Option, Product
from rlprm.envs.webshop.colors import COLORS, normalized
from rlprm.envs.webshop.reward import (
    RULES,
    Parts,
    Request,
    attributes_met,
    option_met,
    purchase_reward,
    similarity,
    title_score,
    type_factor,
)
from rlprm.envs.webshop.title_nouns import by_rules, noun_finder
from rlprm.errors import ConfigError
from tests.toys.webshop import BOOTS, GOAL, episode, product

both_rules = pytest.mark.parametrize("rule", RULES)


def words(title: str) -> tuple[str, ...]:
    """Every word is a noun."""
    return tuple(title.split())


def judged(bought: Product, *chosen: str, request: Request = GOAL.request, rule: str = "fixed") -> Parts:
    return purchase_reward(bought, chosen, request, rule=rule, nouns=by_rules)


# ------------------------------------------------------------------------------ the whole


@both_rules
@pytest.mark.parametrize(
    ("fields", "chosen", "expected"),
    [
        # two attributes, two options and a price: fifths
        ({}, ("navy", "9"), Parts(1.0, 1.0, 2, 2, True)),
        ({}, ("navy",), Parts(4 / 5, 1.0, 2, 1, True)),
        ({}, ("black", "8"), Parts(3 / 5, 1.0, 2, 0, True)),
        ({"price": 60.0}, ("navy", "9"), Parts(1.0, 1.0, 2, 2, True)),
        ({"price": 60.01}, ("navy", "9"), Parts(4 / 5, 1.0, 2, 2, False)),
        ({"attributes": ("quick drying",)}, ("navy", "9"), Parts(4 / 5, 1.0, 1, 2, True)),
        ({"attributes": (), "price": 99.0}, (), Parts(0.0, 1.0, 0, 0, False)),
        # titles that share none of the wanted one's three nouns
        ({"title": "keltro lip balm"}, ("navy", "9"), Parts(0.0, 0.0, 2, 2, True)),
    ],
)
def test_the_parts_of_a_reward(
    rule: str, fields: dict[str, object], chosen: tuple[str, ...], expected: Parts
) -> None:
    given_fields = {"title": BOOTS.title, "attributes": BOOTS.attributes} | fields
    bought = product(options=(Option("color", ("navy", "black")), Option("size", ("8", "9"))), **given_fields)
    assert judged(bought, *chosen, rule=rule) == expected


def test_half_the_type_halves_the_reward() -> None:
    wanted = product(title="a b c d e f g h i j", query="x", product_category="p › q")
    bought = product(title="a b", query="y", product_category="r › s", attributes=("warm",))
    request = Request(("warm",), (), 50.0, wanted)
    parts = purchase_reward(bought, (), request, rule="fixed", nouns=words)
    assert parts == Parts(0.5, 0.5, 1, 0, True)  # (1 + 0 + 1) / (1 + 0 + 1), halved


def test_without_options_attributes_and_price_remain() -> None:
    request = Request(("water resistant", "open toe", "wide fit"), (), 60.0, BOOTS)
    assert judged(BOOTS, request=request).reward == pytest.approx(2 / 4)


# ------------------------------------------------------------------------------ type

TEN = "a b c d e f g h i j"


@pytest.mark.parametrize(
    ("title", "query", "category", "factor"),
    [
        ("k", "boots", "shoes › outdoor", 0.0),  # no noun in common, whatever else is
        ("a k", "y", "r › s", 0.1),  # 1 / 11 < 0.1
        ("a k", "boots", "shoes › outdoor", 0.1),
        ("a b k", "y", "r › s", 0.5),  # 2 / 11 is not above 0.2
        ("a b k", "boots", "r › s", 1.0),  # the same query
        ("a b k", "y", "outdoor › q › shoes", 1.0),  # two steps in common, in any order
        ("a b k", "y", "shoes › s", 0.5),  # one is too few
        ("a b k", "y", "shoes › shoes", 0.5),  # and once
        ("a b c", "y", "r › s", 1.0),  # 3 / 11 > 0.2
    ],
)
def test_the_type_by_nouns_query_and_category(title: str, query: str, category: str, factor: float) -> None:
    wanted = product(title=f"{TEN} l", query="boots", product_category="shoes › outdoor › boots")
    bought = product(title=title, query=query, product_category=category)
    assert type_factor(bought, wanted, words) == factor


def test_a_fifth_of_the_nouns_is_not_enough() -> None:
    wanted = product(title=TEN, query="x", product_category="p")
    assert type_factor(product(title="a b", query="y", product_category="q"), wanted, words) == 0.5
    assert type_factor(product(title="a b c", query="y", product_category="q"), wanted, words) == 1.0


def test_nouns_of_the_wanted_title_count_as_often_as_they_stand_there() -> None:
    assert title_score("a c", "a a b", words) == pytest.approx(1 / 3)
    assert title_score("a a a", "a b", words) == pytest.approx(1 / 2)
    assert title_score("anything", "", words) == 0.2


# ------------------------------------------------------------------------------ attributes and options


def test_an_attribute_is_alike_or_stands_in_the_text() -> None:
    shown = product(
        title="Fleece Lined boots",
        description="Made of Memory Foam.",
        bullets=("for rain", "wide", "Fit for all"),
        attributes=("essential oils", "tea tree"),
    )
    wanted = ("essential oil", "tree tea", "fleece lined", "memory foam", "wide fit", "steel toe")
    assert [attributes_met(shown, [attribute]) for attribute in wanted] == [1, 1, 1, 1, 1, 0]
    assert attributes_met(shown, wanted) == 5


@both_rules
@pytest.mark.parametrize(
    ("name", "value", "chosen", "met"),
    [
        ("color", "navy", ("navy",), True),
        ("color", "navy", ("9", "navy"), True),
        ("color", "navy", ("black",), False),
        ("color", "navy", (), False),
        ("color", "navy blue", ("sky blue",), True),  # both are "blue"
        ("color", "navy blue", ("dark navy",), False),  # "blue" and "dark"
        ("color", "light navy", ("navy light",), True),
        ("", "cool powder snow", ("powder snow",), True),
        ("size", "xx-large", ("xx-large",), True),
        ("size", "9", ("8",), False),
    ],
)
def test_options(rule: str, name: str, value: str, chosen: tuple[str, ...], met: bool) -> None:
    assert option_met(name, value, chosen, rule=rule) == met


def test_upstreams_defect_and_its_repair() -> None:
    """What is chosen becomes "blue"; strictly, what is wanted stays "('color', 'bluegreen')"."""
    assert not option_met("color", "bluegreen", ["bluegreen"], rule="strict")
    assert option_met("color", "bluegreen", ["bluegreen"], rule="fixed")
    assert option_met("", "bluegreen", ["bluegreen"], rule="strict")  # human instructions name no option
    rewards = {}
    for rule in RULES:
        sold = product(options=(Option("color", ("bluegreen",)),), attributes=("warm",))
        request = Request(("warm",), (("color", "bluegreen"),), 50.0, sold)
        rewards[rule] = judged(sold, "bluegreen", request=request, rule=rule).reward
    assert rewards == {"strict": pytest.approx(2 / 3), "fixed": 1.0}


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=8))
def test_by_the_fixed_rule_the_wanted_value_itself_always_does(value: str, name: str) -> None:
    assert option_met(name, value, [value], rule="fixed")


def test_colors_by_the_first_of_the_list() -> None:
    assert len(COLORS) == len(set(COLORS)) == 102
    assert normalized("dark red") == "dark"
    assert normalized("red and black") == "black"
    assert normalized("rose gold") == "gold"
    assert normalized("tanned leather") == "tan"
    assert normalized("xx-large") == "xx-large"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("tea tree", "TREE, tea!", 100),
        ("powder snow", "cool powder snow", 100),  # one has all words of the other
        ("café", "caf", 100),  # thefuzz drops Latin-1
        ("abc", "", 0),
        ("abcdef", "abcdefgh", 86),  # 2 · 6 / 14 = 85.7
        ("a" * 23 + "bbbb", "a" * 23 + "cccc", 85),  # 2 · 23 / 54 = 85.19
    ],
)
def test_similarity_is_thefuzz_token_set_ratio(one: str, other: str, expected: int) -> None:
    assert similarity(one, other) == similarity(other, one) == expected


def test_a_rounded_ratio_above_85_is_alike() -> None:
    assert option_met("", "abcdef", ["abcdefgh"], rule="fixed")
    assert not option_met("", "a" * 23 + "bbbb", ["a" * 23 + "cccc"], rule="fixed")


@given(st.text(max_size=20), st.text(max_size=20))
def test_similarity_of_anything(one: str, other: str) -> None:
    assert 0 <= similarity(one, other) <= 100


# ------------------------------------------------------------------------------ nouns


@pytest.mark.parametrize(
    ("title", "nouns"),
    [
        ("norvia water resistant Hiking Boots", ("norvia", "water", "hiking", "boots")),
        ("Women's Dress, 2 pcs for the Beach (Red)", ("women's", "dress", "beach")),
        ("T-Shirt", ("t-shirt",)),
        ("easy to use and very soft", ()),
        ("", ()),
    ],
)
def test_nouns_by_rules(title: str, nouns: tuple[str, ...]) -> None:
    assert by_rules(title) == nouns


@given(st.text(max_size=60))
def test_nouns_are_words_of_the_title(title: str) -> None:
    assert all(noun in title.lower() for noun in by_rules(title))


def test_a_spacy_model_is_used_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    tags = {"boots": "NOUN", "Norvia": "PROPN", "for": "ADP", "wide": "ADJ"}

    def load(name: str) -> object:
        if name == "json":  # an installed package that is no model
            raise TypeError("load() got an unexpected keyword argument 'vocab'")
        if name != "en_tiny":
            raise OSError(f"no model {name}")
        return lambda title: [SimpleNamespace(text=word, pos_=tags[word]) for word in title.split()]

    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace(load=load))
    noun_finder.cache_clear()
    try:
        assert noun_finder("en_tiny")("Norvia boots for wide") == ("norvia", "boots")
        for wrong in ("en_missing", "json"):
            with pytest.raises(ConfigError, match=f"nouns: got '{wrong}', not an installed model.*'rules'"):
                noun_finder(wrong)
        assert episode(nouns="en_tiny").outcome().definition.endswith("nouns: en_tiny)")
    finally:
        noun_finder.cache_clear()


def test_a_missing_spacy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    noun_finder.cache_clear()
    with pytest.raises(ConfigError, match="spaCy is not installed; allowed: 'rules'"):
        noun_finder("en_core_web_sm")
