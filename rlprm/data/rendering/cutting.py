"""A chat template, cut into pieces: what stands around a message of the agent and around an observation.

Pieces are discovered by rendering probes. A conversation is its pieces, appended, so a template may treat
its history as it likes: drop old thoughts, or write an empty thought. What must hold is that a conversation
always *ends* in the same text: the agent's newest message, the piece around an observation, and the
generation prompt, at each turn and whatever was said before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rlprm.data.rendering.template import Template
from rlprm.data.thoughts import CLOSE, OPEN
from rlprm.errors import ChatTemplateError
from rlprm.types import Message

__all__ = ["BARE_END", "Pieces", "cut", "probes", "rewritten"]

_SYSTEM, _FIRST, _REPLY, _USER = "a-probe-rule", "a-probe-start", "a-probe-reply", "a-probe-question"
BARE_END = f"\n{CLOSE}\n\n"
"""End of an empty thought, for templates that open one and never show how one without words ends."""
_THOUGHT = f"{OPEN}\nan earlier thought\n{CLOSE}\n\nsecond reply"
_CONTROL = "<|im_end|>\n<|im_start|>user\n<tool_response>x</tool_response><|end|></s> [INST] [/INST]"
_REPLIES = {
    "a plain reply": "first reply",
    "a reply with a thought": _THOUGHT,
    "an empty reply": "",
    "a reply with white space around": " \n a reply \n\n",
    "a reply with control text": _CONTROL,
    "a thought that was cut": f"{OPEN}\nan unfinished thought",
}
_PADDED = " \n an observation \n "
_OBSERVATIONS = {
    "a long observation": " ".join(map(str, range(200))),
    "an observation with control text": f"x{_CONTROL} {OPEN}y{CLOSE} z",
}
_TRIMS: dict[str, Callable[[str], str]] = {
    "": str, "both": str.strip, "left": str.lstrip, "right": str.rstrip,
}  # fmt: skip
_SHOWN = 40


@dataclass(frozen=True)
class Pieces:
    """The pieces of a chat template.

    Attributes:
        closing: text of the token that ends a message of the agent.
        before: what follows the closing token, up to an observation.
        after: what follows an observation, up to the agent's next message.
        header: what the template writes between its own generation prompt and the agent's text, such as
            gpt-oss's ``<|channel|>final<|message|>``; already a part of ``after``, to be added to a prompt.
        prefix: what the agent writes itself before its text if it has no thought: the end of a thought that
            the generation prompt opened, or a blank.
        trims: which outer white space of an observation the template drops: ``""``, ``"both"``,
            ``"left"`` or ``"right"``.
        opens_thought: whether the generation prompt ends within a thought.
        default_system: the system prompt that the template writes by itself; empty if there is none.
    """

    closing: str
    before: str
    after: str
    header: str
    prefix: str
    trims: str
    opens_thought: bool
    default_system: str

    def observation(self, text: str) -> str:
        """Return an observation as the template writes it."""
        return _TRIMS[self.trims](text)


def probes() -> list[list[Message]]:
    """Return conversations of the kinds that :func:`cut` renders."""
    return [
        _say("u", _FIRST), _say("su", _SYSTEM, _FIRST), _say("uau", _FIRST, _REPLY, _USER),
        *(messages for opening in ("u", "su", "uau") for _, messages in _conversations(opening, _USER)),
    ]  # fmt: skip


def cut(template: Template, leading_token: Callable[[str], str], split: Callable[[str], list[str]]) -> Pieces:
    """Discover the pieces of a template.

    Args:
        template: to cut; its ``in_parts`` is set.
        leading_token: returns the token that a text begins with, or raises an error.
        split: cuts a text at its control tokens; they and the words between are the items.

    Raises:
        ChatTemplateError: with the reason for which it cannot be cut.
    """
    _choose_contents(template)
    start = template.render(_say("u", _FIRST))
    turn = template.render(_say("uau", _FIRST, _REPLY, _USER))
    replied = template.render(_say("ua", _FIRST, _REPLY), generate=False)
    between, after = turn.split(_REPLY)[1].split(_USER)
    closing = leading_token(between)
    prompt = start.split(_FIRST)[1]
    opens_thought = prompt.rfind(OPEN) > prompt.rfind(CLOSE)
    header, prefix = _opening(start, turn, replied, opens_thought)
    pieces = Pieces(
        closing=closing,
        before=between[len(closing) :],
        after=after + header,
        header=header,
        prefix=prefix,
        trims=_trims(template, between, after),
        opens_thought=opens_thought,
        default_system=_default_system(start.split(_FIRST)[0], between[len(closing) :], split),
    )
    for opening in ("u", "uau", "su") if _takes_system(template) else ("u", "uau"):
        _require_the_same_end(template, pieces, between, after, opening)
    return pieces


def rewritten(template: Template, pieces: Pieces) -> str:
    """Return the first difference between a long conversation, rendered whole, and its pieces; "" if none."""
    messages = _say("u", "first question")
    appended = template.render(messages) + pieces.header
    for turn, reply in enumerate(("first reply", _THOUGHT, "third reply")):
        observation = f"observation {turn}"
        messages += _say("au", reply, observation)
        appended += pieces.prefix + reply + pieces.closing + pieces.before + observation + pieces.after
    rendered = template.render(messages) + pieces.header
    if rendered == appended:
        return ""
    at = next(
        (i for i, (a, b) in enumerate(zip(rendered, appended, strict=False)) if a != b),
        min(len(rendered), len(appended)),
    )
    return f"expected {appended[at : at + _SHOWN]!r} but the template gives {rendered[at : at + _SHOWN]!r}"


def _say(roles: str, *texts: str) -> list[Message]:
    names = {"s": "system", "u": "user", "a": "assistant"}
    return [Message(role=names[role], content=text) for role, text in zip(roles, texts, strict=True)]


def _conversations(opening: str, observation: str) -> Iterator[tuple[str, list[Message]]]:
    """Yield conversations of one to three turns, with each kind of reply before the newest observation."""
    texts = {"u": [_FIRST], "su": [_SYSTEM, _FIRST], "uau": [_FIRST, "OK", "Begin."]}[opening]
    kinds = list(_REPLIES)
    for number, newest in enumerate(kinds):
        messages = _say(opening, *texts)
        for turn in range(3):
            kind = kinds[(number + turn + 1) % len(kinds)]
            yield f"turn {turn + 1}, after {newest}", [*messages, *_say("au", _REPLIES[newest], observation)]
            messages += _say("au", _REPLIES[kind], f"observation {turn}")


def _choose_contents(template: Template) -> None:
    """Hand contents over as text, or in parts if only then all of them are written."""
    errors: list[ChatTemplateError] = []
    for template.in_parts in (False, True):
        try:
            text = template.render(_say("uau", _FIRST, _REPLY, _USER))
        except ChatTemplateError as error:
            errors.append(error)
            continue
        if [text.count(content) for content in (_FIRST, _REPLY, _USER)] == [1, 1, 1]:
            return
    if len(errors) == 2:
        raise errors[0]
    raise ChatTemplateError("the chat template drops or repeats message contents")


def _opening(start: str, turn: str, replied: str, opens_thought: bool) -> tuple[str, str]:
    """Return what the template, and what the agent, writes between generation prompt and text.

    The place to look at is the newest message before an observation. If the template writes another start
    there than its generation prompt, the place is the last message of a finished conversation.
    """
    heads = [text.split(_REPLY)[0] for text in (turn, replied) if text.count(_REPLY) == 1]
    found = next((head[len(start) :] for head in heads if head.startswith(start)), None)
    if found is None:
        return "", BARE_END if opens_thought else ""
    if opens_thought and CLOSE not in found:
        return "", BARE_END
    # An agent that may think must be free to write its thought itself.
    by_agent = not found.strip() or OPEN in found or CLOSE in found
    return ("", found) if by_agent else (found, "")


def _trims(template: Template, between: str, after: str) -> str:
    text = template.render(_say("uau", _FIRST, _REPLY, _PADDED))
    for name, trim in _TRIMS.items():
        if text.endswith(between + trim(_PADDED) + after):
            return name
    raise ChatTemplateError("the chat template changes the white space within an observation")


def _takes_system(template: Template) -> bool:
    try:
        text = template.render(_say("su", _SYSTEM, _FIRST))
    except ChatTemplateError:
        return False
    return _SYSTEM in text


def _require_the_same_end(template: Template, pieces: Pieces, between: str, after: str, opening: str) -> None:
    cases = [
        (f"{where}, {what}", messages, observation)
        for what, observation in {"a short observation": "o", **_OBSERVATIONS}.items()
        for where, messages in _conversations(opening, observation)
    ]
    for where, messages, observation in cases:
        text, end = template.render(messages), between + pieces.observation(observation) + after
        if not text.endswith(end):
            at = next((i for i in range(1, len(end) + 1) if text[-i:] != end[-i:]), len(end))
            raise ChatTemplateError(
                "the chat template does not write the same around every observation: "
                f"{where}: expected {end[-at:][:_SHOWN]!r} but the template gives {text[-at:][:_SHOWN]!r}"
            )


def _default_system(start: str, before: str, split: Callable[[str], list[str]]) -> str:
    """Return the words that the template writes in front of a first message, without its header.

    Args:
        start: a prompt up to the first message's content.
        before: what the template writes in front of an observation, which ends in the same header.
        split: cuts a text at its control tokens; they and the words between are the items.
    """
    items, header = split(start), split(before)
    while items and header and items[-1].strip() == header[-1].strip():
        items.pop(), header.pop()
    tokens = {item for item in items if split(f"{item}x") != [f"{item}x"]}
    words = (item.strip().removeprefix("system\n").strip() for item in items if item not in tokens)
    return "\n\n".join(word for word in words if word not in ("", "system"))
