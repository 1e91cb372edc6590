"""Hypothesis strategies for text and trajectories."""

from __future__ import annotations

import unicodedata

from hypothesis import strategies as st

from rlprm.types import End, Outcome, Split, Step, StopReason, Task, Trajectory
from tests.toys import corridor

# What breaks encoders: control tokens, fixed phrases, line separators, pieces of other alphabets, bare bytes.
AWKWARD = (
    *corridor.FIXED_PHRASES,
    *("<|im_end|>", "<|im_start|>user\n", "<|endoftext|>", "assistant\n", "user\n", "\n\n", "\r\n"),
    *("\u2028", "\x85", "\x00", " ", "  .", "Ġ", "é", "e\u0301", "日本", "🤖", "\u200d", "\ufffd", '"', "\\"),
)


def texts(max_pieces: int = 8) -> st.SearchStrategy[str]:
    """Any unicode, the awkward among it more often than by chance."""
    invalid = st.binary(max_size=6).map(lambda b: b.decode("utf-8", errors="replace"))
    pieces = st.one_of(st.sampled_from(AWKWARD), st.text(max_size=6), invalid)
    return st.lists(pieces, max_size=max_pieces).map("".join)


def nfc(text: str) -> str:
    """Unicode's normal form C, which is what Qwen2's tokenizer keeps of a text."""
    return unicodedata.normalize("NFC", text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | texts(2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts(2), inner, max_size=2),
    max_leaves=4,
)
finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    """Trajectories that hold together: steps in order, columns of one length, failures with their cause."""
    steps, mask = [], [0] * draw(st.integers(1, 4))
    for _ in range(draw(st.integers(0, 3))):
        sampled, forced = draw(st.integers(0, 3)), draw(st.booleans())
        length = sampled + (forced or not sampled)
        steps.append(Step(len(mask), len(mask) + length - 1, draw(texts(3)), draw(finite)))
        mask += [1] * sampled + [0] * (length - sampled) + [0] * draw(st.integers(0, 3))
    failed_start = not steps and draw(st.booleans())
    size = 0 if failed_start else steps[-1].end + 1 if steps else len(mask)
    failed = failed_start or draw(st.booleans())
    stops = [None, *(stop for stop in StopReason if stop is not StopReason.ERROR)]
    roles = st.sampled_from(["system", "user", "assistant"])
    message = st.fixed_dictionaries({"role": roles, "content": texts(3)})
    return Trajectory(
        task=Task(
            draw(texts(2)),
            draw(texts(2)),
            draw(st.sampled_from(Split)),
            draw(st.dictionaries(texts(2), json_values, max_size=3)),
        ),
        sample=draw(st.integers(0, 2**31)),
        seed=draw(st.integers(0, 2**63 - 1)),
        messages=() if failed_start else tuple(draw(st.lists(message, max_size=3))),
        token_ids=tuple(draw(st.lists(st.integers(0, 200_000), min_size=size, max_size=size))),
        action_mask=tuple(mask[:size]),
        logprobs=tuple(draw(finite) if m else 0.0 for m in mask[:size]),
        steps=tuple(steps),
        outcome=Outcome(draw(st.floats(0, 1)), draw(st.booleans()), draw(texts(2))),
        stop=StopReason.ERROR if failed else draw(st.sampled_from(stops)),
        end=draw(st.sampled_from(End)),
        temperature=draw(st.floats(0, 2)),
        policy=draw(texts(1)),
        template=draw(texts(1)),
        error=draw(texts(3)) + "x" if failed else None,
    )
