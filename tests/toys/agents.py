"""Policies and scorers whose every answer a test can state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from rlprm.data.conversation import Conversation
from rlprm.data.rendering import ChatRenderer
from rlprm.models.tokenizer import train_tokenizer
from rlprm.policies.base import Completion, uniforms
from rlprm.types import StepScores, Task, Trajectory
from tests.toys import corridor

FED_PER_TOKEN = 2
"""Tokens through a forward that a toy policy reports for each token it samples."""


@cache
def renderer() -> ChatRenderer:
    corpus = [*corridor.FIXED_PHRASES, "left right finish pit crash wait", "Walk to the goal.", "0123456789"]
    return ChatRenderer(train_tokenizer(corpus, phrases=corridor.FIXED_PHRASES, vocab_size=400))


class _ToyPolicy:
    def __init__(self, temperature: float = 1.0) -> None:
        self.renderer = renderer()
        self.revision = "toy"
        self.temperature = temperature
        self.max_new_tokens = 16
        self.context_length = 2048
        self.calls: list[int] = []
        """Number of conversations of each call."""
        self.seeds: list[list[int]] = []
        """Seeds of each call."""

    def _completion(self, text: str) -> Completion:
        ids = tuple(self.renderer.action_ids(text))
        return Completion(ids, (-1.0,) * len(ids), FED_PER_TOKEN * len(ids))


class ScriptedPolicy(_ToyPolicy):
    """Says what a script holds for the actions so far; the i-th request of one context gets the i-th line.

    Args:
        script: history of actions → what to say, taken in turn, from the start again when used up.
    """

    def __init__(self, script: Mapping[tuple[str, ...], Sequence[str]], temperature: float = 1.0) -> None:
        super().__init__(temperature)
        self.script = script

    def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
        self.calls.append(len(conversations))
        self.seeds.append(list(seeds))
        asked: Counter[tuple[str, ...]] = Counter()
        completions = []
        for conversation in conversations:
            history = tuple(step.action for step in conversation.steps)
            lines = self.script[history]
            completions.append(self._completion(lines[asked[history] % len(lines)]))
            asked[history] += 1
        return completions


class SeededPolicy(_ToyPolicy):
    """Draws from a few actions by the row's seed alone; at temperature 0 it says the first."""

    def __init__(self, actions: Sequence[str] = corridor.ACTIONS, temperature: float = 1.0) -> None:
        super().__init__(temperature)
        self.actions = actions

    def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
        self.calls.append(len(conversations))
        self.seeds.append(list(seeds))
        if self.temperature == 0:
            return [self._completion(self.actions[0]) for _ in conversations]
        drawn = uniforms(seeds, 1)[:, 0]
        return [self._completion(self.actions[int(u * len(self.actions))]) for u in drawn]


class FunctionScorer:
    """Scores a step by a function of the task and the actions up to it.

    Args:
        value: gives ``v_t`` for the first t actions, ``v_0`` for none.
        tokens: what each scored trajectory is said to have cost.
    """

    def __init__(
        self, value: Callable[[Task, tuple[str, ...]], float], tokens: int = 10, name: str = "toy"
    ) -> None:
        self.value, self.tokens, self.name = value, tokens, name
        self.seen: list[tuple[str, ...]] = []
        """Action history of every trajectory it was asked about."""

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        results = []
        for trajectory in trajectories:
            actions = tuple(step.action for step in trajectory.steps)
            self.seen.append(actions)
            chain = [self.value(trajectory.task, actions[:t]) for t in range(len(actions) + 1)]
            results.append(StepScores(chain[0], tuple(chain[1:]), self.tokens))
        return results


def table_scorer(table: Mapping[tuple[str, ...], float], tokens: int = 10) -> FunctionScorer:
    """A scorer that looks action histories up; one that is not in the table is an error of the test."""
    return FunctionScorer(lambda _, actions: table[actions] if actions else 0.5, tokens)
