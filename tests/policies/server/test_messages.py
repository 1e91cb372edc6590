"""A message that a server writes in parts is the message that would be written token by token."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlprm.policies.base import Completion
from rlprm.policies.decoding.thoughts import ThoughtEnding, ThoughtLimit
from rlprm.policies.server.generate import Generated
from rlprm.policies.server.messages import write_message

END = 5


def next_token(context: Sequence[int], salt: int) -> int:
    """A greedy model: a token is a function of all before it."""
    return random.Random(f"{list(context)} {salt}").choice([0, 1, 2, 3, 4, END, 7, 8])


def limit(tokens: int, *, opened: bool) -> ThoughtLimit:
    """4 is blank, 7 opens and 8 closes a thought; 9 8 is the end that is forced."""
    blank_V = torch.tensor([False] * 4 + [True] + [False] * 6)
    return ThoughtLimit(tokens, torch.tensor([9, 8]), 8, None if opened else 7, blank_V)


def token_by_token(
    prompt: list[int], salt: int, most: int, thoughts: ThoughtLimit | None
) -> tuple[list[int], list[int]]:
    ids: list[int] = []
    mask: list[int] = []
    ending = None if thoughts is None else ThoughtEnding(thoughts, 1, torch.device("cpu"))
    while len(ids) < most:
        token, forced = next_token([*prompt, *ids], salt), False
        if ending is not None:
            token_B, forced_B = ending.next(torch.tensor([token]))
            token, forced = int(token_B), bool(forced_B)
        ids.append(token)
        mask.append(int(not forced))
        if token == END:
            break
    return ids, mask


def through_server(
    prompt: list[int], salt: int, most: int, thoughts: ThoughtLimit | None
) -> tuple[Completion, list[int]]:
    requests: list[int] = []

    async def ask(context: Sequence[int], seed: int, limit: int) -> Generated:
        requests.append(limit)
        ids: list[int] = []
        while len(ids) < limit and (not ids or ids[-1] != END):
            ids.append(next_token([*context, *ids], salt))
        return Generated(ids, [-1.0] * len(ids), ids[-1] == END, frozenset(), len(context))

    message = write_message(ask, prompt, seed=3, max_new_tokens=most, stop_ids={END}, thoughts=thoughts)
    return asyncio.run(message), requests


@given(
    salt=st.integers(0, 10**6),
    most=st.integers(4, 40),
    tokens=st.integers(1, 12),
    opened=st.booleans(),
)
@settings(deadline=None, max_examples=200)
def test_parts_of_a_message_are_the_whole(salt: int, most: int, tokens: int, opened: bool) -> None:
    thoughts = limit(min(tokens, most - 2), opened=opened)
    ids, mask = token_by_token([1], salt, most, thoughts)
    done, requests = through_server([1], salt, most, thoughts)
    assert list(done.ids) == ids
    assert list(done.mask or [1] * len(ids)) == mask
    assert list(done.logprobs) == [-1.0 if sampled else 0.0 for sampled in mask]
    assert len(requests) <= 3
    assert done.fed_tokens > 0


@given(salt=st.integers(0, 10**6), most=st.integers(1, 20))
@settings(deadline=None, max_examples=30)
def test_without_a_limit_one_request_is_enough(salt: int, most: int) -> None:
    done, requests = through_server([1], salt, most, None)
    assert list(done.ids) == token_by_token([1], salt, most, None)[0]
    assert requests == [most]
    assert done.mask == ()


@pytest.mark.parametrize("most", [1, 2])
def test_a_forced_end_is_cut_where_the_message_ends(most: int) -> None:
    thoughts = limit(1, opened=True)
    for salt in range(40):
        done, _ = through_server([1], salt, 1 + most, thoughts)
        assert list(done.ids) == token_by_token([1], salt, 1 + most, thoughts)[0]
