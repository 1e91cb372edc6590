"""The form of a PRM server's requests, and what is refused before a tokenizer or a model is asked.

A body is read in two passes. The first counts: it refuses more trajectories, steps, tokens or characters than
the limits allow before anything is built of them. The second compares types, and stops at the first problem.
What a body may cost is therefore bounded by its size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    FailFast,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from rlprm.errors import RlprmError

__all__ = [
    "Bounds",
    "MessageIn",
    "MessagesIn",
    "RefusedError",
    "ScoreRequest",
    "StepIn",
    "TokensIn",
    "got",
    "parse",
    "refused",
    "steps_of",
]

_SHOWN = 60  # characters of what was received
_ALLOWED = {
    "model_type": "an object",
    "model_attributes_type": "an object",
    "dict_type": "an object",
    "list_type": "a list",
    "string_type": "a text",
    "int_type": "an integer",
    "bool_type": "true or false",
    "string_pattern_mismatch": "1 to 64 letters, digits, _ or -",
}
"""What messages say of a type; pydantic's words name classes of this module."""
_CHARACTERS_A_TOKEN = 16
"""Characters of messages for each token that a trajectory may have; text has about 4."""


class RefusedError(RlprmError, ValueError):
    """A request that is answered with an error.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Bounds:
    """What a trajectory may be."""

    trajectories: int
    """Of a request."""
    steps: int
    """Of a trajectory."""
    tokens: int
    """Of a trajectory."""
    vocabulary: int
    """Token ids are below it."""


class _FirstProblem(FailFast):
    """A list is read up to its first problem, so that a long one does not give a long list of problems."""

    __hash__ = object.__hash__  # a part of a union


class _Known(BaseModel):
    """An object without unknown keys. The first unknown one is an error, however many there are."""

    model_config = ConfigDict(strict=True, json_schema_extra={"additionalProperties": False})

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, value: Any) -> Any:
        unknown = (
            next((key for key in value if key not in cls.model_fields), None) if _is_object(value) else None
        )
        if unknown is not None:
            allowed = ", ".join(cls.model_fields)
            raise PydanticCustomError("unknown", "{problem}", {"problem": got(unknown, allowed)})
        return value


class StepIn(_Known):
    """One action, as positions in the token ids."""

    start: int = Field(description="Index of the first token of the action.")
    end: int = Field(description="Index of its closing token (inclusive).")


class ToolCallIn(_Known):
    """A call of a tool."""

    name: str
    arguments: dict[str, Any]


class MessageIn(_Known):
    """A chat message. What its texts hold is text: markers of thoughts and control tokens included."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    thought: str | None = Field(None, description="What the agent thought before the rest.")
    tool_calls: Annotated[list[ToolCallIn], _FirstProblem()] | None = Field(
        None, description="Calls that end the message, of tools of the PRM's environment."
    )
    action: str | None = Field(
        None,
        description="What was read as the action, if that is not the whole content. A thought between "
        "markers in the content is then taken for one.",
    )
    closed: bool = Field(True, description="Whether the agent closed the message itself.")
    thought_cut: bool = Field(False, description="Whether the end of the thought was forced.")


class TokensIn(_Known):
    """A trajectory in the PRM's own tokens: the whole conversation up to and including the last action."""

    token_ids: Annotated[list[int], _FirstProblem()]
    steps: Annotated[list[StepIn], _FirstProblem()]
    template: str = Field(description="Hash of chat template and tokenizer; that of /info.")
    action_mask: Annotated[list[int], _FirstProblem()] | None = Field(
        None, description="1 for each sampled token, else 0; if absent, all tokens of steps were sampled."
    )
    task: str | None = Field(None, description="Candidates of one search with the same task share a prompt.")


class MessagesIn(_Known):
    """A conversation, rendered with the PRM's chat template. One step an assistant message."""

    messages: Annotated[list[MessageIn], _FirstProblem()] = Field(
        description="Those after the last message of the assistant are not read."
    )
    num_steps: int | None = Field(
        None, description="How many of the last messages of the assistant are steps; all if absent."
    )
    task: str | None = Field(None, description="Candidates of one search with the same task share a prompt.")


def _kind(value: Any) -> str:
    return "messages" if _is_object(value) and "messages" in value else "tokens"


class ScoreRequest(_Known):
    """Trajectories to score."""

    trajectories: Annotated[
        list[
            Annotated[
                Annotated[TokensIn, Tag("tokens")] | Annotated[MessagesIn, Tag("messages")],
                Discriminator(_kind),
            ]
        ],
        _FirstProblem(),
    ]
    aggregation: Literal["last", "min", "mean", "product"] | None = Field(
        None, description="Rule that makes one score of the values of a trajectory."
    )
    search: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="Name of a search. What its candidates have in common with those of its last request "
        "is not read again.",
    )


def steps_of(given: MessagesIn) -> int:
    """Return how many messages of the assistant are steps."""
    by_agent = sum(message.role == "assistant" for message in given.messages)
    return by_agent if given.num_steps is None else given.num_steps


def parse(body: bytes, bounds: Bounds) -> ScoreRequest:
    """Read a body as a request.

    Raises:
        RefusedError: with status 400 or 422, the latter for JSON that is no request.
    """
    try:
        content = json.loads(body, parse_constant=_no_number, parse_float=_finite)
    except RecursionError as error:
        raise RefusedError(400, "the body is nested too deeply") from error
    except ValueError as error:  # among them what is no UTF-8, and numbers of thousands of digits
        reason = str(error) if isinstance(error, json.JSONDecodeError | _NoNumberError) else "it has no text"
        raise RefusedError(400, f"the body is no JSON: {reason}") from error
    _count(content, bounds)
    try:
        return ScoreRequest.model_validate(content)
    except ValidationError as error:
        raise refused(_first_problem(error)) from error


def _count(content: Any, bounds: Bounds) -> None:
    """Refuse sizes beyond the limits, as far as the content has the form of a request."""
    if not _is_object(content) or not isinstance(content.get("trajectories"), list):
        return
    rows = content["trajectories"]
    _require_size("trajectories", len(rows), 1, bounds.trajectories)
    for i, row in enumerate(rows):
        if not _is_object(row):
            continue
        where = f"trajectories.{i}"
        for name, least, most in (
            ("token_ids", 1, bounds.tokens),
            ("action_mask", 1, bounds.tokens),
            ("steps", 0, bounds.steps),
            # An opening, and between two actions an answer of one or several messages.
            ("messages", 1, 4 * bounds.steps + 16),
        ):
            if isinstance(row.get(name), list):
                _require_size(f"{where}.{name}", len(row[name]), least, most)
        messages = row.get("messages")
        if isinstance(messages, list):
            said = [message for message in messages if _is_object(message)]
            steps = sum(message.get("role") == "assistant" for message in said)
            wanted = row.get("num_steps")
            steps = wanted if isinstance(wanted, int) else steps
            _require_size(f"{where}.messages", steps, 0, bounds.steps, "steps")
            characters = sum(_characters(message) for message in said)
            most = bounds.tokens * _CHARACTERS_A_TOKEN
            _require_size(f"{where}.messages", characters, 0, most, "characters")
        if isinstance(row.get("task"), str):
            _require_size(f"{where}.task", len(row["task"]), 1, 200, "characters")


def _require_size(where: str, size: int, least: int, most: int, what: str = "entries") -> None:
    if not least <= size <= most:
        raise refused(f"{where}: got {size} {what}, allowed: {least} to {most}")


def _characters(message: Mapping[str, Any]) -> int:
    texts = sum(len(value) for value in message.values() if isinstance(value, str))
    calls = message.get("tool_calls")
    try:
        return texts + (len(json.dumps(calls)) if calls else 0)
    except RecursionError as error:
        raise refused("messages: the arguments of a call are nested too deeply") from error


def _first_problem(error: ValidationError) -> str:
    """Return field and reason of the first problem; what was received is cut short."""
    first = error.errors(include_url=False, include_context=False)[0]
    tags = ("tokens", "messages")
    # The choice between the two forms of a trajectory puts a tag behind its number.
    place = [part for i, part in enumerate(first["loc"]) if not (i == 2 and part in tags)]
    where = ".".join(map(str, place)) or "the body"
    if first["type"] == "unknown":
        return f"{where}: {first['msg']}"
    if first["type"] == "missing":
        return f"{where}: got nothing, allowed: a value"
    allowed = _ALLOWED.get(first["type"]) or first["msg"].removeprefix("Input should be ")
    return f"{where}: {got(first['input'], allowed)}"


def got(received: object, allowed: str) -> str:
    """Return what was received, cut short, and what is allowed."""
    shown = repr(received) if isinstance(received, str | int | float | None) else _kind_of(received)
    if len(shown) > _SHOWN:
        shown = f"{shown[:_SHOWN]}..."
    return f"got {shown}, allowed: {allowed}"


def _kind_of(received: object) -> str:
    return "a list" if isinstance(received, list) else "an object"


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def refused(message: str) -> RefusedError:
    """Return the error of a request whose content is not allowed."""
    return RefusedError(422, message)


class _NoNumberError(ValueError):
    """A number that JSON does not have."""


def _no_number(name: str) -> Any:
    raise _NoNumberError(f"{name} is no number")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise _NoNumberError("a number is too large")
    return number
