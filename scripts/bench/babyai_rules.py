"""How often BabyAI's two rules differ: in states, in actions, in episodes.

    python scripts/bench/babyai_rules.py                       # 40 levels, 8 test tasks each
    python scripts/bench/babyai_rules.py --tasks 2 --rounds 20 --seed 1

An agent plays each task by AgentGym's rules. Half of its actions are the expert's, as far as they go, and the
others are drawn from the list it is shown. The same actions are then played by the fixed rules, until either
episode ends. No model is involved.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from typing import Any

from rlprm import envs
from rlprm.envs.babyai.actions import find_options
from rlprm.envs.babyai.rules import Rules
from rlprm.envs.babyai.view import look
from rlprm.envs.babyai.world import World
from rlprm.errors import DemonstrationError
from rlprm.types import End, Split, StopReason, Task


def expert_actions(task: Task) -> list[str]:
    """Return a demonstration, or nothing if the expert fails."""
    try:
        return list(envs.of_task(task).demonstrate(task, end=End.ON_SUCCESS))
    except DemonstrationError:
        return []


def compare_state(world: World) -> Counter[str]:
    """Count how the actions of one state differ between the rules."""
    view = look(world)
    ours = find_options(view, world.carrying, declared=False)
    theirs = find_options(
        view, world.carrying, declared=False, rules=Rules.AGENTGYM, direction=world.agent_dir
    )
    counts = Counter(
        states=1,
        lists_differ=list(ours.actions) != list(theirs.actions),
        more_offered=len(theirs.actions) > len(ours.actions),
        # As many actions under other names: the unreachable objects are skipped in the numbering.
        renumbered=len(theirs.actions) == len(ours.actions) and list(ours.actions) != list(theirs.actions),
    )
    for (verb, cell), action in ours.texts.items():
        way, other = ours.actions[action], theirs.actions[theirs.texts[verb, cell]]
        counts.update(macros=1, other_way=way != other, other_length=len(way) != len(other))
    return counts


def play(task: Task, rounds: int, rng: random.Random) -> tuple[list[str], list[float], Any, Counter[str]]:
    """Play by AgentGym's rules; return actions, the reward after each, the episode, and counts of states."""
    env: Any = envs.of_task(task).make(task, end=End.ON_SUCCESS)
    env.reset()
    script = iter(expert_actions(task))
    actions, rewards, counts = [], [], Counter[str]()
    for _ in range(rounds):
        counts += compare_state(env._world)
        available = list(env._options.actions)
        action = next(script, "") if rng.random() < 0.5 else ""
        actions.append(action if action in available else rng.choice(available))
        turn = env.step(actions[-1])
        rewards.append(env.reward)
        if turn.stop is not None:
            break
    return actions, rewards, env, counts


def compare_episode(task: Task, rounds: int, rng: random.Random) -> Counter[str]:
    """Play an episode, the same actions by the fixed rules, and count how the two differ."""
    actions, rewards, served, counts = play(task, rounds, rng)
    fixed = Task(task.environment, task.id, task.split, {**task.spec, "rules": Rules.FIXED.value})
    env: Any = envs.of_task(fixed).make(fixed, end=End.ON_SUCCESS)
    env.reset()
    stop, reward = None, 0.0
    for action, reward in zip(actions, rewards, strict=True):  # noqa: B007  (both are read after the loop)
        stop = env.step(action).stop
        if stop is not None:
            break
    won, won_there = env.outcome().success, served.outcome().success
    counts.update(
        episodes=1,
        success_fixed=won,
        success_agentgym=won_there,
        only_fixed=won and not won_there,
        only_agentgym=won_there and not won,
        met_within_action=stop is StopReason.SUCCESS and reward == 0,
        ended_as_failure=stop is StopReason.FAILURE,
        ended_by_step_limit=stop is StopReason.ENV_LIMIT,
        success_goes_on=any(0 < reward <= 0.5 for reward in rewards),
        reward_below_0=min(rewards) < 0,
        score_above_1=served.total > 1,
    )
    return counts


def main() -> None:
    """Print every count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", type=int, default=8, help="of each level")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args()
    levels = list(envs.load("babyai").LEVELS)  # type: ignore[attr-defined]
    count = settings.tasks * len(levels)
    tasks = envs.load("babyai").tasks(Split.TEST, 0, count, levels=levels, rules=Rules.AGENTGYM.value)
    total = Counter[str]()
    for task in tasks:
        total.update(compare_episode(task, settings.rounds, random.Random(f"{settings.seed} {task.id}")))
    for name, number in total.items():
        print(f"{name:<22}{number:>8,}")


if __name__ == "__main__":
    main()
