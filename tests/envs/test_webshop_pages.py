"""WebShop: pages, buttons and actions, word for word."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlprm.envs import webshop
from rlprm.envs.webshop import Option, Review, WebShop, pages
from rlprm.envs.webshop.actions import Action, parse_action
from rlprm.envs.webshop.goal import Goal
from rlprm.envs.webshop.reward import Request
from rlprm.envs.webshop.settings import Setting
from rlprm.types import End, StopReason
from tests.toys.webshop import BOOTS, GOAL, INSTRUCTION, SANDALS, episode, product, shop_of


def page(text: str) -> str:
    """Pieces of a page, written with a tilde between them."""
    return text.replace(" ~ ", " [SEP] ")


HEAD = page(f"Instruction: ~ {INSTRUCTION} ~ Back to Search")
RESULTS = HEAD + page(
    " ~ Page 1 (Total results: 2) ~ Next > ~ B00BOOTS01 ~ norvia hiking boots ~ $49.99"
    " ~ B00SANDAL1 ~ keltro hiking sandals ~ $20.0"
)
ITEM = HEAD + page(
    " ~ < Prev ~ color ~ navy ~ black ~ size ~ 8 ~ 9 ~ norvia hiking boots ~ Price: $49.99 ~ Rating: 4.5"
    " ~ Description ~ Features ~ Reviews ~ Buy Now"
)
START = page(f"WebShop ~ Instruction: ~ {INSTRUCTION} ~ Search")
TO_THE_ITEM = ("search[hiking boots]", "click[B00BOOTS01]")


def answers(env: WebShop, *actions: str) -> list[str]:
    return [env.step(action).observation for action in actions]


def at(*actions: str, **setting: Any) -> WebShop:
    env = episode(**setting)
    answers(env, *actions)
    return env


# ------------------------------------------------------------------------------ text pages


def test_an_episode_word_for_word() -> None:
    env = WebShop(shop_of([BOOTS, SANDALS]), GOAL, Setting())
    assert env.reset() == START
    assert answers(env, *TO_THE_ITEM, "click[Features]", "click[< Prev]", "click[navy]", "click[9]") == [
        RESULTS,
        ITEM,
        f"{HEAD} [SEP] < Prev [SEP] water resistant [SEP] quick drying",
        *[ITEM] * 3,
    ]
    done = env.step("click[Buy Now]")
    assert (done.reward, done.stop) == (1.0, StopReason.DECLARED)
    assert done.observation == page(
        "Thank you for shopping with us! ~ Your code: ~ None ~ (Paste it in your MTurk interface.)"
        ' ~ Purchased ~ asin ~ B00BOOTS01 ~ options ~ {"color": "navy", "size": "9"} ~ attrs ~ None'
        " ~ category ~ None ~ query ~ None ~ product category ~ None ~ Target ~ asin ~ options ~ attrs"
        " ~ price upper ~ instuction text ~ category ~ product category ~ query ~ Goal ~ None ~ Reward"
        " ~ Your score (min 0.0, max 1.0) ~ 1.0 ~ Reward Details ~ None"
    )


def test_upstreams_own_pages() -> None:
    """Pages of a published episode (1,000 products, of which two stand here)."""
    title = "L'eau D'issey By Issey Miyake for MenEau De Toilette Spray, 6.7 Fl Oz Bottle"
    spray = product(
        "B000VOHH8I",
        title,
        price=64.98,
        price_tag="$64.98",
        options=(Option("size", ("2.5 fl oz", "6.76 fl oz (pack of 1)")),),
    )
    text = "i need a long lasting 6.76 fl oz bottle of l'eau d'issey, and price lower than 100.00 dollars"
    wanted = Goal(text, Request(("long lasting",), (("", "6.76 fl oz (pack of 1)"),), 100.0, spray))
    env = episode([spray], wanted)
    head = f"Instruction: ~ {text} ~ Back to Search"
    assert answers(env, "search[l'eau d'issey 6.76 fl oz bottle price < 100.00]", "click[B000VOHH8I]") == [
        page(f"{head} ~ Page 1 (Total results: 1) ~ Next > ~ B000VOHH8I ~ {title} ~ $64.98"),
        page(
            f"{head} ~ < Prev ~ size ~ 2.5 fl oz ~ 6.76 fl oz (pack of 1) ~ {title} ~ Price: $64.98"
            " ~ Rating: N.A. ~ Description ~ Features ~ Reviews ~ Buy Now"
        ),
    ]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Description", "Boots for rain."),
        ("Features", "water resistant [SEP] quick drying"),
        ("Reviews", '"just right" [SEP] 5.0 [SEP] they fit'),
    ],
)
def test_sub_pages_lead_back_to_the_item(name: str, shown: str) -> None:
    env = at(*TO_THE_ITEM)
    assert answers(env, f"click[{name}]", "click[< Prev]") == [f"{HEAD} [SEP] < Prev [SEP] {shown}", ITEM]


@pytest.mark.parametrize("name", ["Description", "Features", "Reviews"])
def test_sub_pages_of_a_product_without_any_text_are_empty(name: str) -> None:
    env = at("search[hiking]", "click[B00SANDAL1]")
    assert answers(env, f"click[{name}]") == [f"{HEAD} [SEP] < Prev"]


@pytest.mark.parametrize(
    ("bullets", "shown"),
    [
        (("",), "< Prev [SEP] "),  # a trailing separator with nothing behind it
        (("water resistant", ""), "< Prev [SEP] water resistant [SEP] "),
        (("", "quick drying"), "< Prev [SEP]  [SEP] quick drying"),
        (("  ", "x"), "< Prev [SEP]  [SEP] x"),
        (("\n", "x"), "< Prev [SEP] x"),  # the parser folds it to a newline, and newlines are skipped
        ((" two\nlines ",), "< Prev [SEP] two\nlines"),
    ],
)
def test_blank_bullets_leave_their_separator(bullets: tuple[str, ...], shown: str) -> None:
    """Worked out from upstream: "<p> {bullet}</p>", each text but a newline stripped and joined."""
    env = episode([product("B00BOOTS01", "hiking boots", bullets=bullets)])
    page = answers(env, "search[boots]", "click[B00BOOTS01]", "click[Features]")[-1]
    assert page == f"{HEAD} [SEP] {shown}"


@pytest.mark.parametrize(
    ("description", "shown"),
    [("", "< Prev"), (" ", "< Prev [SEP] "), (" \n ", "< Prev"), (" Boots. ", "< Prev [SEP] Boots.")],
)
def test_a_blank_description_leaves_a_separator_and_an_empty_one_none(description: str, shown: str) -> None:
    env = episode([product("B00BOOTS01", "hiking boots", description=description)])
    page = answers(env, "search[boots]", "click[B00BOOTS01]", "click[Description]")[-1]
    assert page == f"{HEAD} [SEP] {shown}"


def test_a_review_without_a_body_is_its_title_and_score() -> None:
    env = episode([product("B00BOOTS01", "hiking boots", reviews=(Review("fine", "4.0", ""),))])
    page = answers(env, "search[boots]", "click[B00BOOTS01]", "click[Reviews]")[-1]
    assert page == f'{HEAD} [SEP] < Prev [SEP] "fine" [SEP] 4.0'


def test_attributes_are_shown_where_asked_for() -> None:
    env = at(*TO_THE_ITEM, show_attributes=True)
    shown = (
        " ~ < Prev ~ water resistant ~ quick drying ~ fashion ~ hiking boots ~ shoes › outdoor › hiking boots"
    )
    assert answers(env, "click[attributes]") == [HEAD + page(shown)]
    assert "Reviews [SEP] Attributes [SEP] Buy Now" in answers(env, "click[< prev]")[0]
    assert not at(*TO_THE_ITEM).step("click[attributes]").valid


def many(count: int) -> list[webshop.Product]:
    return [product(f"B{number:09}", f"boots {number}") for number in range(count)]


def numbers(page: str) -> list[int]:
    return [
        int(piece[1:]) for piece in page.split(pages.SEPARATOR) if len(piece) == 10 and piece[1:].isdigit()
    ]


def test_fifty_results_in_pages_of_ten() -> None:
    env = episode(many(60))
    first, second = answers(env, "search[boots]", "click[next >]")
    assert first.startswith(f"{HEAD} [SEP] Page 1 (Total results: 50) [SEP] Next > [SEP] B0")
    assert second.startswith(f"{HEAD} [SEP] Page 2 (Total results: 50) [SEP] < Prev [SEP] Next > [SEP] B0")
    assert (numbers(first), numbers(second)) == (list(range(10)), list(range(10, 20)))
    last = answers(env, *["click[Next >]"] * 3)[-1]
    assert last.startswith(f"{HEAD} [SEP] Page 5 (Total results: 50) [SEP] < Prev [SEP] Next > [SEP] B0")
    assert answers(env, *["click[< Prev]"] * 4)[-1] == first
    assert not env.step("click[< Prev]").valid


def test_next_leads_to_empty_pages_behind_the_last_result() -> None:
    env = episode(many(12))
    first, second, third, fourth = answers(env, "search[boots]", *["click[Next >]"] * 3)
    assert (numbers(first), numbers(second)) == (list(range(10)), [10, 11])
    assert third == f"{HEAD} [SEP] Page 3 (Total results: 12) [SEP] < Prev [SEP] Next >"
    assert fourth == third.replace("Page 3", "Page 4")
    assert answers(env, *["click[< Prev]"] * 3) == [third, second, first]


def test_the_way_back_from_an_item_is_its_page_of_results() -> None:
    env = episode(many(60), results_per_page=4)
    *_, third = answers(env, "search[boots]", "click[next >]", "click[next >]")
    assert numbers(third) == [8, 9, 10, 11]
    assert (
        answers(env, "click[B000000009]", "click[Description]", "click[< Prev]", "click[< Prev]")[-1] == third
    )


def test_nothing_found() -> None:
    env = episode()
    assert (
        answers(env, "search[zebra]", "search[the of and]", "search[ ]")
        == [f"{HEAD} [SEP] Page 1 (Total results: 0) [SEP] Next >"] * 3
    )


# ------------------------------------------------------------------------------ what can be done where


@pytest.mark.parametrize(
    ("before", "action"),
    [
        ((), "click[Search]"),  # upstream's button is not to be clicked
        ((), "click[Back to Search]"),
        ((), "click[B00BOOTS01]"),
        ((), "click[Buy Now]"),
        (TO_THE_ITEM[:1], "click[Buy Now]"),
        (TO_THE_ITEM[:1], "click[navy]"),
        (TO_THE_ITEM[:1], "click[Features]"),
        (TO_THE_ITEM[:1], "click[B00NOSUCH1]"),
        (TO_THE_ITEM, "click[B00SANDAL1]"),
        (TO_THE_ITEM, "click[red]"),
        (TO_THE_ITEM, "click[Next >]"),
        (TO_THE_ITEM, "click[norvia hiking boots]"),
        ((*TO_THE_ITEM, "click[Features]"), "click[Buy Now]"),
        ((*TO_THE_ITEM, "click[Features]"), "click[Reviews]"),
        ((*TO_THE_ITEM, "click[Features]"), "click[navy]"),
    ],
)
def test_what_is_not_on_the_page_leaves_it_as_it_is(before: tuple[str, ...], action: str) -> None:
    env = at(*before)
    state = env.state
    same = env.fork().step("click[no such thing]").observation
    turn = env.step(action)
    assert (turn.observation, turn.reward, turn.stop, turn.valid) == (same, 0.0, None, False)
    assert env.state == state


@pytest.mark.parametrize(
    "action", ["", "buy now", "jump[high]", "search[]", "click[", "click", "[navy]", "search boots"]
)
def test_what_is_no_action_is_answered_with_the_bare_page(action: str) -> None:
    env = at(*TO_THE_ITEM)
    turn = env.step(action)
    assert (turn.observation, turn.reward, turn.valid) == (ITEM, 0.0, False)


def test_search_works_on_every_page() -> None:
    """Upstream does not ask whether there is a search bar."""
    env = at(*TO_THE_ITEM, "click[Features]")
    assert answers(env, "search[hiking boots]") == [RESULTS]


def test_options_are_forgotten_on_the_way_back() -> None:
    env = at(*TO_THE_ITEM, "click[navy]", "click[9]", "click[< Prev]", "click[B00BOOTS01]")
    assert env.state.chosen == ()
    assert env.step("click[Buy Now]").reward == pytest.approx(3 / 5)


def test_options_outlive_a_sub_page_and_can_be_changed() -> None:
    env = at(*TO_THE_ITEM, "click[black]", "click[9]", "click[Reviews]", "click[< Prev]", "click[navy]")
    assert env.state.chosen == (("color", "navy"), ("size", "9"))
    assert env.step("click[buy now]").reward == 1.0


def test_a_value_of_two_options_is_the_later_ones() -> None:
    sized = product(options=(Option("width", ("9", "10")), Option("length", ("8", "9"))))
    env = episode([sized])
    answers(env, "search[boots]", "click[b000000001]", "click[9]")
    assert env.state.chosen == (("length", "9"),)


def test_back_to_search_starts_anew() -> None:
    env = at(*TO_THE_ITEM, "click[navy]")
    assert answers(env, "click[back to search]") == [START]
    assert env.state == episode().state


def test_the_episode_is_over_after_the_purchase() -> None:
    env = at(*TO_THE_ITEM, "click[Buy Now]")
    with pytest.raises(RuntimeError, match="over"):
        env.step("search[boots]")
    assert (env.outcome().score, env.outcome().success) == (pytest.approx(3 / 5), False)


def test_nothing_bought_is_worth_nothing() -> None:
    outcome = at(*TO_THE_ITEM, "click[navy]", "click[9]").outcome()
    assert (outcome.score, outcome.success) == (0.0, False)
    assert outcome.definition == "webshop: reward 1.0 at the purchase (options: fixed, nouns: rules)"


def test_a_fork_shops_for_itself() -> None:
    env = at(*TO_THE_ITEM, "click[navy]")
    fork = env.fork()
    answers(fork, "click[9]", "click[Buy Now]")
    assert fork.outcome().success
    assert env.state.chosen == (("color", "navy"),)
    assert answers(env, "click[8]") == [ITEM]


_CLICKS = [
    "search[hiking boots]", "search[sandals]", "click[back to search]", "click[< prev]", "click[next >]",
    "click[b00boots01]", "click[b00sandal1]", "click[navy]", "click[9]", "click[features]", "click[reviews]",
]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(_CLICKS), max_size=12), st.sampled_from(["text", "rich"]))
def test_only_a_valid_action_changes_the_page(actions: list[str], observations: str) -> None:
    env = episode(observations=observations, results_per_page=1)
    page, state = env.fork().reset(), env.state
    for action in actions:
        turn = env.step(action)
        assert INSTRUCTION in turn.observation
        if not turn.valid:
            assert (turn.observation, env.state) == (page, state)
        page, state = turn.observation, env.state


# ------------------------------------------------------------------------------ rich pages


def test_rich_pages_mark_what_can_be_clicked_and_what_was() -> None:
    env = episode(observations="rich")
    instructed = f"Instruction:\n{INSTRUCTION}\n"
    start = f"WebShop\nInstruction: \n{INSTRUCTION}\n[button] Search [button_]\n"  # the template has a blank
    assert env.fork().reset() == start
    results, item = answers(env, *TO_THE_ITEM)
    assert results == (
        f"{instructed}[button] Back to Search [button_]\nPage 1 (Total results: 2)\n"
        "[button] Next > [button_]\n\n[button] B00BOOTS01 [button_]\nnorvia hiking boots\n$49.99\n"
        "\n[button] B00SANDAL1 [button_]\nkeltro hiking sandals\n$20.0\n"
    )
    shown = "norvia hiking boots\nPrice: $49.99\nRating: 4.5\n[button] Description [button_]\n"
    shown += "[button] Features [button_]\n[button] Reviews [button_]\n[button] Buy Now [button_]\n"
    buttons = f"{instructed}[button] Back to Search [button_]\n[button] < Prev [button_]\n"
    assert item == (
        f"{buttons}color\n  [button] navy [button_]\n  [button] black [button_]\n"
        f"size\n  [button] 8 [button_]\n  [button] 9 [button_]\n{shown}"
    )
    assert answers(env, "click[navy]", "click[8]")[-1] == (
        f"You have clicked 8.\nYou have clicked navy.\n{buttons}"
        "color\n  [clicked button] navy [clicked button_]\n  [button] black [button_]\n"
        f"size\n  [clicked button] 8 [clicked button_]\n  [button] 9 [button_]\n{shown}"
    )
    assert "\n[clicked button] B00BOOTS01 [clicked button_]\n" in answers(env, "click[< Prev]")[0]
    assert "\n[clicked button] B00BOOTS01 [clicked button_]\n" in answers(env, "search[boots]")[0]
    again = answers(env, "click[Back to Search]", "search[boots]")[-1]
    assert "\n[button] B00BOOTS01 [button_]\n" in again


def test_rich_sub_pages_and_the_last_page_keep_the_blanks_of_upstreams_templates() -> None:
    env = at(*TO_THE_ITEM, observations="rich")
    head = f"Instruction:\n{INSTRUCTION}\n[button] Back to Search [button_]\n[button] < Prev [button_]\n"
    features, _, reviews = answers(env, "click[Features]", "click[< Prev]", "click[Reviews]")
    assert features == f"{head} water resistant\n quick drying\n"
    assert reviews == f'{head}"just right"\n5.0\nthey fit\n'
    *_, done = answers(env, "click[< Prev]", "click[Buy Now]")
    assert "\nYour code: \nNone\n (Paste it in your MTurk interface.)\n" in done
    assert done.endswith("\nGoal \nNone\nReward\nYour score (min 0.0, max 1.0)\n0.6\nReward Details \nNone\n")


@pytest.mark.parametrize(("value", "marked"), [("9 wide", True), ('6"', False), ("café", False)])
def test_rich_pages_mark_only_values_that_stand_in_upstreams_address(value: str, marked: bool) -> None:
    env = episode([product(options=(Option("size", (value, "10")),))], observations="rich")
    page = answers(env, "search[boots]", "click[B000000001]", f"click[{value}]")[-1]
    assert env.state.chosen == (("size", value),)
    assert (f"You have clicked {value}." in page) is marked


def test_options_of_the_last_page_are_written_as_flask_writes_json() -> None:
    env = episode([product(options=(Option("size", ("6' <x> & co",)),))])
    done = answers(env, "search[boots]", "click[B000000001]", "click[6' <x> & co]", "click[Buy Now]")[-1]
    assert '{"size": "6\\u0027 \\u003cx\\u003e \\u0026 co"}' in done


# ------------------------------------------------------------------------------ reading actions


@pytest.mark.parametrize(
    ("written", "action"),
    [
        ("search[Red Boots]", Action("search", "red boots")),
        ("  Click[Buy Now] \n", Action("click", "buy now")),
        ("click[6.76 fl oz [2 pack]]", Action("click", "6.76 fl oz [2 pack]")),
        ("Thought:\nI think so.\n\nAction:\nsearch[boots]</s>", Action("search", "boots")),
        ("Action: click[a]\nAction: click[b]", Action("click", "b")),
        ("click[a] because", Action("click", "a")),
        ("search[a] b]", Action("search", "a] b")),
        ("search[boots [red]]", None),  # upstream takes all before the last bracket for the name
        ("search[boots] and click[navy]", None),
        ("i would search[boots]", None),  # as upstream, which then finds no such action
        ("search[a\nb]", None),
        ("search[]", None),
        ("Action:", None),
    ],
)
def test_actions_are_read_as_by_agentgyms_client(written: str, action: Action | None) -> None:
    assert parse_action(written) == action


@given(st.sampled_from(["search", "click"]), st.text(min_size=1).filter(lambda text: "\n" not in text))
def test_any_target_on_one_line_is_read_back(name: str, target: str) -> None:
    if "Action:" not in target and (name == "click" or "[" not in target):
        assert parse_action(f"Thought:\nhm\n\nAction:\n{name}[{target}]</s>") == Action(name, target.lower())


@given(st.text())
def test_reading_never_fails(text: str) -> None:
    action = parse_action(text)
    assert action is None or (action.name in ("search", "click") and action.target)


def test_instructions_do_not_depend_on_the_end() -> None:
    for style in ("short", "agentgym"):
        assert webshop.opening(end=End.DECLARED, style=style) == webshop.opening(
            end=End.ON_SUCCESS, style=style
        )
    assert webshop.opening(end=End.DECLARED, style="agentgym")[1]["content"] == "Ok."
