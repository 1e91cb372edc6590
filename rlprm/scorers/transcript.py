"""A baseline without a model: a short rule that reads the outcome off the texts of an episode.

First question of every comparison: can the outcome be read off the transcript? If it can, best-of-N over
finished episodes measures reading, not foresight. Sampling until this scorer is 1 then is what a search must
beat. The rule is the environment's own (``read_transcript``); math has none.

How often the rule's verdict (1, or less) at the last step equals success, with ``end: declared``, over
episodes of the expert, of the expert with a quarter of its actions left out, and of random actions:

================================ ======== =========
environment                      episodes agreement
================================ ======== =========
BabyAI, GoToLocalS8N7, PickupLoc      900    99.7 %
BabyAI, all 40 levels               2,818    99.4 %
TextCraft (no random actions)         396   100.0 %
================================ ======== =========

BabyAI's errors are nearly all successes that the texts do not show, because a macro action faced the
object on its way. WebShop's rule gives a share and no verdict. In 147 generated requests with 16 shopping
trips each (the expert's, with other products and options) one trip succeeds in 18.6 %, the best of 16 by
the rule in 81.1 %, the best by the outcome in 97.3 %. These figures are of WebShop's pages before they got
upstream's "Next >" and lost the lines for what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile

from rlprm import envs
from rlprm.data.rerender import split_messages, text_of
from rlprm.errors import ConfigError, MismatchError
from rlprm.types import StepScores, StopReason, Trajectory

__all__ = ["ACCEPTED", "Transcript", "build", "turns_of"]

ACCEPTED = 1.0
"""Score of an episode that the rule believes to be solved. Half of a mission of two parts is below it."""
_Rule = Callable[[str, Sequence[tuple[str, str]]], list[float]]


def build(name: str, *, environment: str) -> Transcript:
    """Build the scorer; see :class:`rlprm.scorers.base.ScorerModule`.

    Args:
        name: shown in tables.
        environment: whose rule is used; its name must come from the run's settings.

    Raises:
        ConfigError: for an environment without a rule.
    """
    scorer = Transcript(environment)
    scorer.name = name
    return scorer


class Transcript:
    """Score of a step: what the environment's rule believes after the step's answer, in [0, 1].

    Args:
        environment: whose rule is used.

    Raises:
        ConfigError: for an environment without a rule.
    """

    def __init__(self, environment: str) -> None:
        rule: _Rule | None = getattr(envs.load(environment), "read_transcript", None)
        if rule is None:
            raise ConfigError(
                f"the scorer transcript: the environment {environment} has no read_transcript, so there is "
                "no rule that reads an outcome off its texts; leave this scorer out"
            )
        self.name = "transcript"
        self.environment = environment
        self._rule = rule

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        """Score every step, ``v_0 = 0``; see :class:`rlprm.scorers.base.Scorer`.

        Raises:
            MismatchError: for a trajectory of another environment.
        """
        return [self._score(trajectory) for trajectory in trajectories]

    def _score(self, trajectory: Trajectory) -> StepScores:
        if not envs.belongs_to(trajectory.task, self.environment):
            raise MismatchError(
                f"the scorer {self.name} reads transcripts of {self.environment}, got a trajectory of "
                f"{trajectory.task.environment}"
            )
        if not trajectory.steps:
            return StepScores(initial=0.0, values=())
        return StepScores(initial=0.0, values=tuple(self._rule(*turns_of(trajectory))))


def turns_of(trajectory: Trajectory) -> tuple[str, list[tuple[str, str]]]:
    """Return the first observation of an episode, and each action with the answer to it.

    The answer is empty if there is none, or if the agent ended the episode: a closing message may state
    the outcome (WebShop's states the reward).

    Args:
        trajectory: with at least one step, finished or not.
    """
    prompt, turns = split_messages(trajectory)
    closing = takewhile(lambda message: message["role"] != "assistant", reversed(trajectory.messages))
    last = "" if trajectory.stop is StopReason.DECLARED else text_of([*closing][::-1])
    answers = [*(seen or "" for seen, _ in turns[1:]), last]
    actions = [step.action for step in trajectory.steps]
    return prompt[-1]["content"], list(zip(actions, answers, strict=True))
