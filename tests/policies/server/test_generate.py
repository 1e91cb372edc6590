"""An answer is used only if it is a whole message of the request; whatever else comes is a bad answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlprm.policies.server.client import BadAnswerError
from rlprm.policies.server.generate import read_generated, read_prompt_logprobs, sampling_params

STOP = {9}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def answer(**changes: Any) -> dict[str, Any]:
    ids = changes.pop("ids", [4, 5, 9])
    logprobs = changes.pop("logprobs", [-0.5] * len(ids))
    choice = {
        "finish_reason": "stop",
        "token_ids": ids,
        "logprobs": {"content": [{"token_id": i, "logprob": p} for i, p in zip(ids, logprobs, strict=True)]},
        "weight_versions": [{"version": "a", "start": 0, "end": len(ids)}],
        **changes,
    }
    return {
        "choices": [choice],
        "usage": {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 8}},
    }


def test_a_whole_message() -> None:
    read = read_generated(answer(), max_tokens=5, stop_ids=STOP, vocabulary=10)
    assert (read.ids, read.logprobs, read.is_finished) == ([4, 5, 9], [-0.5] * 3, True)
    assert read.versions == {"a"}
    assert read.fed_tokens == 10 - 8 + 3 - 1


def test_a_message_that_the_limit_ended() -> None:
    read = read_generated(answer(ids=[4, 5], finish_reason="length"), max_tokens=2, stop_ids=STOP)
    assert not read.is_finished


def test_a_server_that_does_not_count_cached_tokens_counts_all() -> None:
    told = answer()
    told["usage"] = {"prompt_tokens": 10, "prompt_tokens_details": None}
    assert read_generated(told, max_tokens=5, stop_ids=STOP).fed_tokens == 12


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"finish_reason": "abort"}, "not finished"),
        ({"finish_reason": "error"}, "not finished"),
        ({"ids": []}, "no token ids"),
        ({"ids": [4, 10, 9]}, "vocabulary"),
        ({"ids": [4, -1, 9]}, "vocabulary"),
        ({"ids": [4, True, 9]}, "vocabulary"),
        ({"token_ids": [4, 6, 9]}, "belong together"),
        ({"token_ids": [4, 9]}, "belong together"),
        ({"logprobs": [-0.5, float("nan"), -1.0]}, "no log-probability"),
        ({"logprobs": [-0.5, -9999.0, -1.0]}, "no log-probability"),
        ({"logprobs": [-0.5, 0.7, -1.0]}, "no log-probability"),
        ({"ids": [4, 9, 5, 9]}, "another place"),
        ({"ids": [4, 5]}, "another place"),
        ({"ids": [4, 5, 6, 7, 8, 9]}, "another place"),
        ({"token_ids": None}, "lacks"),
    ],
)
def test_bad_answers(changes: dict[str, Any], cause: str) -> None:
    with pytest.raises(BadAnswerError, match=cause):
        read_generated(answer(**changes), max_tokens=5, stop_ids=STOP, vocabulary=10)


@given(JSON)
@settings(deadline=None)
def test_whatever_else_comes_is_a_bad_answer(content: Any) -> None:
    for told in (content, {"choices": content}, {"choices": [content]}, {**answer(), "usage": content}):
        try:
            read_generated(told, max_tokens=5, stop_ids=STOP)
        except BadAnswerError:
            continue
        assert isinstance(told, dict)
        assert told["choices"] == answer()["choices"]
    with pytest.raises(BadAnswerError):
        read_prompt_logprobs({"prompt_logprobs": content}, [1, 2])


def test_log_probabilities_of_a_prompt() -> None:
    told = {"prompt_logprobs": [None, {"7": {"logprob": -0.25}, "8": {"logprob": -3.0}}]}
    assert read_prompt_logprobs(told, [3, 7]) == [0.0, -0.25]
    with pytest.raises(BadAnswerError):
        read_prompt_logprobs(told, [3, 9])


@pytest.mark.trap("a server's own generation config")
def test_trap_no_sampling_parameter_is_left_to_the_server() -> None:
    sent = sampling_params(temperature=0.7, seed=3, max_tokens=5, stop_ids={9, 2})
    from_config = {"temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "ignore_eos"}
    assert from_config <= sent.keys()
    assert (sent["top_p"], sent["top_k"], sent["min_p"], sent["repetition_penalty"]) == (1.0, 0, 0.0, 1.0)
    assert sent["stop_token_ids"] == [2, 9]
