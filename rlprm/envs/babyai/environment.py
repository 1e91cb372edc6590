"""One episode of BabyAI as text."""

from __future__ import annotations

import copy

from rlprm.envs.babyai import wording
from rlprm.envs.babyai.actions import Options, find_options, normalize
from rlprm.envs.babyai.levels import pristine_world, task_address
from rlprm.envs.babyai.rules import Rules
from rlprm.envs.babyai.served import ServedBabyAI
from rlprm.envs.babyai.view import look
from rlprm.envs.babyai.world import World
from rlprm.errors import ConfigError
from rlprm.types import End, Outcome, StopReason, Task, Turn

__all__ = ["BabyAI", "make"]

_DEFINITIONS = {
    End.ON_SUCCESS: "babyai: reward > 0",
    End.DECLARED: "babyai: mission fulfilled by the last action that changed anything",
}


def make(task: Task, *, end: End) -> BabyAI | ServedBabyAI:
    """Build the environment of a task (and, unless it was among the latest ones, its world).

    Raises:
        ConfigError: if the task is not one of this environment, or ``end`` does not fit its rules.
    """
    world, seed, rules = task_address(task)
    if rules is Rules.FIXED:
        return BabyAI(pristine_world(world, seed), end=End(end))
    if End(end) is End.DECLARED:
        raise ConfigError(
            "end: got declared, allowed with babyai's rules agentgym: on_success (AgentGym's server ends the "
            "episode when the goal is met, and has no action that declares the end)"
        )
    return ServedBabyAI(pristine_world(world, seed))


class BabyAI:
    """One episode by the fixed rules: text actions in, text observations out.

    Differences from AgentGym's server (see :class:`~rlprm.envs.babyai.served.ServedBabyAI`): it ends when
    the goal is met however small the reward, the score is the reward once, and minigrid's step limit ends the
    episode. A goal met in the middle of a macro action counts, because minigrid ends the episode at the
    primitive action that meets the goal. AgentGym's server steps on through the end.
    """

    __slots__ = ("_declared", "_fulfilled", "_options", "_scene", "_start", "_stopped", "_world")

    def __init__(self, start: World, *, end: End) -> None:
        """Prepare an episode that begins in a copy of ``start``; ``reset`` begins it."""
        self._start = start
        self._declared = end is End.DECLARED
        self._fulfilled = False  # by the last action that changed anything
        self._stopped = False
        self._world = start
        self._options = Options()
        self._scene = ""  # description of what is visible, without the list of actions

    def reset(self) -> str:
        """Start the episode and return the first observation."""
        self._world = self._start.fork()
        self._perceive()
        return wording.goal_line(self._world.mission) + self._answer(self._scene)

    def step(self, action: str) -> Turn:
        """Carry out one action; an unknown or impossible one is answered and changes nothing.

        As in AgentGym, "No change in state." answers an action that needs no primitive (the
        agent is where it wants to go); one that is tried in vain is answered with the view.

        Raises:
            RuntimeError: after the end of the episode.
        """
        if self._stopped:
            raise RuntimeError("this episode is over")
        name = normalize(action)
        primitives = self._options.actions.get(name)
        if "check" in name:  # AgentGym takes any action with this word for the question
            return Turn(self._answer(wording.possible_actions(self._options.actions)))
        if self._declared and name == wording.FINISH:
            return self._end(StopReason.DECLARED, wording.FINISHED)
        if primitives is None:
            return Turn(self._answer(self._refusal(name)), valid=False)
        if not primitives:
            return Turn(self._answer(wording.NOTHING_HAPPENED))
        self._carry_out(primitives)
        self._perceive()
        return self._after_acting()

    def outcome(self) -> Outcome:
        """Judge the episode as it stands."""
        end = End.DECLARED if self._declared else End.ON_SUCCESS
        return Outcome(self._score(), self._is_fulfilled(), _DEFINITIONS[end])

    def fork(self) -> BabyAI:
        """Return an independent copy in the same state."""
        other = copy.copy(self)  # options and scene are never changed, only replaced
        other._world = self._world.fork()
        return other

    def _carry_out(self, primitives: list[int]) -> None:
        """Act until a primitive changes nothing, the step limit, or a verdict that is announced."""
        world = self._world
        fulfilled = has_changed = False
        for primitive in primitives:
            changed = world.act(primitive)
            fulfilled, has_changed = fulfilled or world.fulfilled, has_changed or changed
            if has_changed:
                self._fulfilled = fulfilled
            if not changed or world.step_count >= world.max_steps:
                return
            if world.verdict is not None and not self._declared:
                return

    def _perceive(self) -> None:
        view = look(self._world)
        self._scene = wording.describe(view, self._world.carrying)
        self._options = find_options(view, self._world.carrying, declared=self._declared)

    def _after_acting(self) -> Turn:
        world = self._world
        if not self._declared and world.verdict == "success":
            return self._end(StopReason.SUCCESS, self._scene + wording.COMPLETED)
        if not self._declared and world.verdict == "failure":
            return self._end(StopReason.FAILURE, self._scene + wording.FAILED)
        if world.step_count >= world.max_steps:
            return self._end(StopReason.ENV_LIMIT, self._scene)
        return Turn(self._answer(self._scene))

    def _end(self, stop: StopReason, scene: str) -> Turn:
        self._stopped = True
        return Turn(self._answer(scene), reward=self._score(), stop=stop)

    def _is_fulfilled(self) -> bool:
        """Whether the mission is fulfilled.

        Where the agent declares the end, it has to know when: were it enough to have fulfilled the mission
        at any time, visiting one object after another until the rounds are used up would be a success.
        """
        return self._fulfilled if self._declared else self._world.verdict == "success"

    def _score(self) -> float:
        return self._world.score if self._is_fulfilled() else 0.0

    def _refusal(self, name: str) -> str:
        if not name:
            return wording.NOTHING_HAPPENED
        return self._options.refusals.get(name, wording.NOT_RECOGNIZED)

    def _answer(self, scene: str) -> str:
        return scene + wording.action_list(self._options.actions)
