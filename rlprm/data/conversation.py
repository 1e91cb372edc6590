"""A conversation while it happens: token ids grow by appending, and end as a trajectory."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from copy import copy

from rlprm.data.encodable import encodable
from rlprm.data.rendering import ChatRenderer
from rlprm.types import Message, Step


class Conversation:
    """Messages and token ids of one episode in progress.

    ``token_ids``, ``action_mask`` and ``logprobs`` always have equal length.
    After ``observe`` (or right after construction) the policy is to act; after
    ``act`` the environment is to answer.

    Args:
        renderer: of the policy that acts.
        opening: the messages before the first action.
        owner: whose costs the conversation counts for, such as its task; see ``Completion.fed_tokens``.
    """

    def __init__(self, renderer: ChatRenderer, opening: Sequence[Message], *, owner: Hashable = None) -> None:
        self.renderer = renderer
        self.owner = owner
        self.home: object = None
        """Where a policy keeps what it has read of the conversation, such as a server; copies begin there."""
        self.messages: list[Message] = list(opening)
        self.token_ids: list[int] = renderer.prompt_ids(opening)
        self.action_mask: list[int] = [0] * len(self.token_ids)
        self.logprobs: list[float] = [0.0] * len(self.token_ids)
        self.steps: list[Step] = []
        self.exact = True
        """See ``Trajectory.exact``."""
        self.fed_tokens = 0
        """Tokens that endpoints counted for the actions that came as text."""

    def __len__(self) -> int:
        return len(self.token_ids)

    def act(
        self,
        ids: Sequence[int],
        logprobs: Sequence[float],
        mask: Sequence[int] = (),
        *,
        said: Message | None = None,
        fed_tokens: int = 0,
    ) -> str:
        """Append a sampled action and return its text.

        Args:
            ids: of the message.
            logprobs: one for each; 0 for a forced token.
            mask: 1 for each sampled token, 0 for one that was forced; empty if all were sampled.
            said: the message, if it came as text and the ids were made from it.
            fed_tokens: what such a message cost.

        Where the length limit or another token ended the action, the closing token is
        added with mask 0: it was not sampled, but the next turn needs it, and
        the step's value is read there.
        """
        start = len(self.token_ids)
        self._append(ids, mask or [1] * len(ids), logprobs)
        closing = self.renderer.closing_id
        if not ids or ids[-1] != closing:
            self._append([closing], [0], [0.0])
        if said is None:
            text = self.renderer.action_text(ids)
        else:
            text, self.exact = said["content"], False
            self.fed_tokens += fed_tokens
        self.messages.append({"role": "assistant", "content": text})
        self.steps.append(Step(start=start, end=len(self.token_ids) - 1, action=""))
        return text

    def record(self, action: str, reward: float, *, valid: bool = True) -> None:
        """Note what the newest message was parsed to, what it was paid, and whether it could be done."""
        newest = self.steps[-1]
        self.steps[-1] = Step(newest.start, newest.end, action, reward, valid)

    def observe(self, *observations: str) -> None:
        """Append the environment's answer: one message each, the first ones as answers of called tools.

        Half a surrogate pair, which is no text, becomes ``?``.
        """
        messages = self._answers(observations)
        ids = self.renderer.observations_ids(messages)
        self._append(ids, [0] * len(ids), [0.0] * len(ids))
        self.messages += messages

    def note(self, *observations: str) -> None:
        """Keep the closing answer of a finished episode as text only: no model ever reads it."""
        self.messages += self._answers(observations)

    def _answers(self, observations: Sequence[str]) -> list[Message]:
        calls = len(self.messages[-1].get("tool_calls") or ()) if self.steps else 0
        return [
            Message(role="tool" if i < calls else "user", content=encodable(text))
            for i, text in enumerate(observations)
        ]

    def fork(self) -> Conversation:
        """Return an independent copy."""
        other = copy(self)
        for name in ("messages", "token_ids", "action_mask", "logprobs", "steps"):
            setattr(other, name, list(getattr(self, name)))
        return other

    def _append(self, ids: Sequence[int], mask: Sequence[int], logprobs: Sequence[float]) -> None:
        self.token_ids.extend(ids)
        self.action_mask.extend(mask)
        self.logprobs.extend(logprobs)
