"""One episode of BabyAI as AgentGym's server plays it, mistakes included."""

from __future__ import annotations

import copy

from rlprm.envs.babyai import wording
from rlprm.envs.babyai.actions import Options, find_options, normalize
from rlprm.envs.babyai.rules import Rules
from rlprm.envs.babyai.view import Image, appearance, look
from rlprm.envs.babyai.world import World
from rlprm.types import Outcome, StopReason, Turn

__all__ = ["ServedBabyAI", "act_as_server", "start_as_server"]

_DONE_ABOVE = 0.5
_DEFINITION = "babyai: score above 0 (rules: agentgym)"


def act_as_server(world: World, primitives: list[int], image: Image) -> Image:
    """Carry out the primitives of one action, until one leaves the agent's image as it was.

    The image does not show where the agent stands. In a corridor or a wide room a step ahead can change the
    world and not the image, and then the action ends as well. The end of the mission does not end the action.

    Args:
        world: What changes.
        primitives: At least one.
        image: The latest image before the action.

    Returns:
        The image after the last primitive that was carried out.
    """
    for primitive in primitives:
        world.act(primitive)
        before, image = image, appearance(world)
        if image == before:
            break
    return image


def start_as_server(world: World) -> World:
    """Return what the first observation shows of a world at its start; the world itself for most levels.

    minigrid's levels in which the agent begins with an object in its hands draw the first image before they
    put the object there. The object is on the floor in this image, and so in the server's first observation.
    """
    if world.carrying is None:
        return world
    shown = world.fork()
    thing, shown.carrying = shown.carrying, None
    x, y = thing.init_pos
    shown.set(x, y, thing)
    return shown


class ServedBabyAI:
    """One episode: text actions in, text observations out, as AgentGym's server answers.

    What differs from :class:`~rlprm.envs.babyai.environment.BabyAI` is listed in docs/environments.md. The
    episode has no step limit, and ends only if a reward above 0.5 is paid for the last primitive of an
    action.

    Attributes:
        reward: minigrid's reward of the last primitive action, 0 if the action did not fulfil the mission.
            Below 0 after 1.11 times the step limit. Answers without a primitive action leave it as it is.
        total: The server's ``score``, the sum of ``reward`` over all answers. Not bounded by 0 and 1.
    """

    __slots__ = ("_image", "_options", "_start", "_stopped", "_world", "reward", "total")

    def __init__(self, start: World) -> None:
        """Prepare an episode that begins in a copy of ``start``; ``reset`` begins it."""
        self._start = start
        self._world = start
        self._image: Image = ()
        self._options = Options()
        self._stopped = False
        self.reward = self.total = 0.0

    def reset(self) -> str:
        """Start the episode and return the first observation."""
        self._world = self._start.fork()
        shown = start_as_server(self._world)
        self._image = appearance(shown)
        return wording.goal_line(self._world.mission) + self._answer(self._perceive(shown))

    def step(self, action: str) -> Turn:
        """Carry out one action; an unknown or impossible one is answered and changes nothing.

        Raises:
            RuntimeError: after the end of the episode.
        """
        if self._stopped:
            raise RuntimeError("this episode is over")
        name = normalize(action, Rules.AGENTGYM)
        primitives = self._options.actions.get(name)
        is_valid = True
        if "check" in name:
            scene = wording.possible_actions(self._options.actions)
        elif primitives is None:
            is_valid = False
            refusal = self._options.refusals.get(name, wording.NOT_RECOGNIZED)
            scene = refusal if name else wording.NOTHING_HAPPENED
        elif not primitives:
            scene = wording.NOTHING_HAPPENED
        else:
            scene = self._carry_out(primitives)
        self.total += self.reward
        return self._turn(self._answer(scene), is_valid)

    def outcome(self) -> Outcome:
        """Judge the episode as it stands; the server's score is cut off at 0 and 1."""
        return Outcome(min(max(self.total, 0.0), 1.0), self.total > 0, _DEFINITION)

    def fork(self) -> ServedBabyAI:
        """Return an independent copy in the same state."""
        other = copy.copy(self)  # options and image are never changed, only replaced
        other._world = self._world.fork()
        return other

    def _carry_out(self, primitives: list[int]) -> str:
        """Act, and return the answer without the list of actions."""
        world = self._world
        self._image = act_as_server(world, primitives, self._image)
        self.reward = world.score if world.latest == "success" else 0.0
        # minigrid ends an episode in success and in failure. The server calls both completed, and then takes
        # back the end of every episode that pays no more than 0.5, a failure's among them.
        is_over = world.latest != "continue"
        self._stopped = is_over and self.reward > _DONE_ABOVE
        return self._perceive(world) + (wording.COMPLETED if is_over else "")

    def _turn(self, observation: str, is_valid: bool) -> Turn:
        if self._stopped:
            return Turn(observation, reward=self.outcome().score, stop=StopReason.SUCCESS)
        return Turn(observation, valid=is_valid)

    def _perceive(self, shown: World) -> str:
        """Look at a world, renew the options and return the description."""
        carrying = self._world.carrying
        view = look(shown)
        self._options = find_options(
            view, carrying, declared=False, rules=Rules.AGENTGYM, direction=shown.agent_dir
        )
        return wording.describe(view, carrying)

    def _answer(self, scene: str) -> str:
        return scene + wording.action_list(self._options.actions)
