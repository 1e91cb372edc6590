"""Trajectories of a PRM server's requests, in the PRM's own tokens."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from itertools import pairwise

from rlprm.data.rendering import ChatRenderer
from rlprm.data.rerender import Rerenderer
from rlprm.errors import RlprmError, first_line
from rlprm.serving.prm_requests import (
    Bounds,
    MessageIn,
    MessagesIn,
    ScoreRequest,
    StepIn,
    TokensIn,
    got,
    parse,
    refused,
    steps_of,
)
from rlprm.types import End, Message, Outcome, Split, Step, StopReason, Task, Trajectory

__all__ = ["Trajectories"]

_SERVED = "served"
_REMEMBERED = 4_000_000  # bytes of bodies
_FOREIGN = ""  # a template hash that no tokenizer has


class Trajectories:
    """Makes trajectories of requests.

    Args:
        template: hash of the PRM's chat template and tokenizer.
        bounds: what a trajectory may be.
        renderer: of the PRM; messages are refused if it is None.
        environment: the PRM's, whose tools messages may call.
        end: of the PRM's episodes.
    """

    def __init__(
        self, template: str, bounds: Bounds, renderer: ChatRenderer | None, *, environment: str, end: str
    ) -> None:
        self.template, self.bounds, self.renderer = template, bounds, renderer
        self.environment, self.end = environment, End(end)
        self._rendering = threading.Lock()  # tokenizers and renderers keep state between calls
        self._used: ChatRenderer | None = None
        self._bytes = 0

    def read(self, body: bytes) -> tuple[ScoreRequest, list[Trajectory]]:
        """Return a request and its trajectories, in the PRM's own tokens.

        Raises:
            RefusedError: with status 400 for what is no JSON, and 422 for anything else that is refused.
        """
        request = parse(body, self.bounds)
        if request.aggregation is not None:
            self._require_steps(request)
        rerenderer = self._rerenderer(len(body))
        found = []
        for i, given in enumerate(request.trajectories):
            where = f"trajectories.{i}"
            if isinstance(given, TokensIn):
                found.append(self._of_tokens(given, where))
            else:
                found.append(self._of_messages(given, where, rerenderer))
        return request, found

    def _rerenderer(self, size: int) -> Rerenderer | None:
        """Return what renders a request. What clients send fills no memory.

        Pieces are kept as long as the request, and the renderer's shapes of prompts for a few megabytes.
        """
        if self.renderer is None:
            return None
        with self._rendering:
            self._bytes += size
            if self._used is None or self._bytes > _REMEMBERED:
                self._used, self._bytes = self.renderer.forgetful_copy(), size
            return Rerenderer(self._used, is_quiet=True)  # its log would quote what a client sent

    def _require_steps(self, request: ScoreRequest) -> None:
        for i, given in enumerate(request.trajectories):
            if not (given.steps if isinstance(given, TokensIn) else steps_of(given)):
                raise refused(
                    f"trajectories.{i}: got no steps, allowed: at least 1 if there is an aggregation"
                )

    def _task(self, name: str | None) -> Task:
        return Task(self.environment, name or _SERVED, Split.TEST)

    def _of_tokens(self, given: TokensIn, where: str) -> Trajectory:
        if given.template != self.template:
            raise refused(f"{where}.template: {got(given.template, self.template)}")
        ids = given.token_ids
        if not 0 <= min(ids) <= max(ids) < self.bounds.vocabulary:
            i = next(i for i, token in enumerate(ids) if not 0 <= token < self.bounds.vocabulary)
            allowed = f"0 to {self.bounds.vocabulary - 1}"
            raise refused(f"{where}.token_ids.{i}: {got(ids[i], allowed)}")
        _check_steps(given.steps, len(ids), f"{where}.steps")
        return self._made(
            given.task,
            (),
            tuple(ids),
            _mask_of(given, where),
            tuple(Step(step.start, step.end, "") for step in given.steps),
            self.template,
        )

    def _of_messages(self, given: MessagesIn, where: str, rerenderer: Rerenderer | None) -> Trajectory:
        if rerenderer is None:
            raise refused(
                f"{where}.messages: got messages, allowed: token_ids, as the PRM has no chat template"
            )
        _check_text(given, where)
        foreign = self._picture(given, where)
        try:
            with self._rendering:
                own = rerenderer.render(foreign)
        except RlprmError as error:
            raise refused(f"{where}.messages: {first_line(error)}") from error
        except RecursionError as error:
            raise refused(f"{where}.messages: the arguments of a call are nested too deeply") from error
        if len(own.token_ids) > self.bounds.tokens:
            raise refused(
                f"{where}.messages: got {len(own.token_ids)} tokens, allowed: {self.bounds.tokens} at most"
            )
        return own

    def _picture(self, given: MessagesIn, where: str) -> Trajectory:
        """Return a trajectory with the messages and, for each step, three tokens that stand for it.

        The tokens carry what a rendering needs to know: whether a thought's end or the close was forced.
        """
        messages, count = _upto_last_action(given), steps_of(given)
        by_agent = [i for i, message in enumerate(messages) if message.role == "assistant"]
        actions = by_agent[len(by_agent) - count :]
        for before, i in pairwise(actions):
            if i == before + 1:
                allowed = "an observation (user or tool) between two steps"
                raise refused(f"{where}.messages.{i}.role: {got('assistant', allowed)}")
        if not (actions[0] if actions else len(messages)):
            raise refused(f"{where}.messages.0: got the first step, allowed: a message before it")
        mask, steps = [0], list[Step]()
        for i in actions:
            said, start = messages[i], len(mask)
            mask += [1, int(not said.thought_cut), int(said.closed), 0]
            steps.append(Step(start, start + 2, said.content if said.action is None else said.action))
        mask = mask[: steps[-1].end + 1] if steps else mask
        plain = tuple(_plain(message) for message in messages)
        return self._made(given.task, plain, (0,) * len(mask), tuple(mask), tuple(steps), _FOREIGN)

    def _made(
        self,
        task: str | None,
        messages: tuple[Message, ...],
        ids: tuple[int, ...],
        mask: tuple[int, ...],
        steps: tuple[Step, ...],
        template: str,
    ) -> Trajectory:
        return Trajectory(
            task=self._task(task),
            sample=0,
            seed=0,
            messages=messages,
            token_ids=ids,
            action_mask=mask,
            logprobs=(),  # no scorer of a model reads them
            steps=steps,
            outcome=Outcome(0.0, False, _SERVED),
            stop=StopReason.DECLARED,  # whole trajectories are read together; searches say so themselves
            end=self.end,
            temperature=1.0,
            policy=_SERVED,
            template=template,
        )


def _check_steps(steps: Sequence[StepIn], length: int, where: str) -> None:
    """Refuse steps that overlap, lie outside of the tokens, or leave tokens behind the last one."""
    free = 1  # the value before the first action is read at the token before it
    for i, step in enumerate(steps):
        if not free <= step.start:
            allowed = f"{free} or more, behind the {'step before' if i else 'prompt'}"
            raise refused(f"{where}.{i}.start: {got(step.start, allowed)}")
        if not step.start <= step.end < length:
            allowed = f"{step.start} to {length - 1}, the start of the step to the last token"
            raise refused(f"{where}.{i}.end: {got(step.end, allowed)}")
        free = step.end + 1
    if steps and free != length:
        allowed = f"{length - 1}, the last token: a trajectory ends with its last action"
        raise refused(f"{where}.{len(steps) - 1}.end: {got(free - 1, allowed)}")


def _mask_of(given: TokensIn, where: str) -> tuple[int, ...]:
    mask = [0] * len(given.token_ids)
    for step in given.steps:
        mask[step.start : step.end + 1] = [1] * (step.end + 1 - step.start)
    if given.action_mask is None:
        return tuple(mask)
    if len(given.action_mask) != len(mask):
        raise refused(
            f"{where}.action_mask: got {len(given.action_mask)} entries, allowed: {len(mask)}, one a token"
        )
    for i, (entry, inside) in enumerate(zip(given.action_mask, mask, strict=True)):
        if not 0 <= entry <= inside:
            allowed = "0 or 1" if inside else "0 outside of steps"
            raise refused(f"{where}.action_mask.{i}: {got(entry, allowed)}")
    return tuple(given.action_mask)


def _upto_last_action(given: MessagesIn) -> list[MessageIn]:
    """Return the messages up to the last action; all of them if there is no step."""
    last = max((i for i, m in enumerate(given.messages) if m.role == "assistant"), default=-1)
    return given.messages[: last + 1] if steps_of(given) else given.messages


def _check_text(given: MessagesIn, where: str) -> None:
    """Refuse more steps than there are messages of the assistant, and texts with halves of characters."""
    by_agent = sum(message.role == "assistant" for message in given.messages)
    if not 0 <= steps_of(given) <= by_agent:
        allowed = f"0 to {by_agent}, the messages of the assistant"
        raise refused(f"{where}.num_steps: {got(given.num_steps, allowed)}")
    for i, message in enumerate(given.messages):
        calls = json.dumps([[c.name, c.arguments] for c in message.tool_calls or ()], ensure_ascii=False)
        for text in (message.content, message.thought or "", message.action or "", calls):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise refused(
                    f"{where}.messages.{i}: got half a surrogate pair, allowed: Unicode text"
                ) from error


def _plain(message: MessageIn) -> Message:
    plain = Message(role=message.role, content=message.content)
    if message.thought is not None:
        plain["thought"] = message.thought
    if message.tool_calls:
        plain["tool_calls"] = [{"name": c.name, "arguments": c.arguments} for c in message.tool_calls]
    return plain
