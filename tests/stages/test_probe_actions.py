"""Probes of actions: states spread over tasks, actions merged as a beam does, values near the exact ones."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from rlprm.data.conversation import Conversation
from rlprm.data.probes import ActionProbe, ProbedAction
from rlprm.errors import ArtifactError, ConfigError, DataError, MismatchError
from rlprm.evaluation.discrimination import evaluate_discrimination
from rlprm.policies.base import Completion
from rlprm.rollouts.waves import rollout
from rlprm.runtime.processes import Processes
from rlprm.runtime.record import recorded
from rlprm.stages.probe_actions import choose_states, find_candidates, probe_actions
from rlprm.stages.settings import ProbeActionsConfig
from rlprm.types import EpisodeSetting, Split, StopReason, Task, Trajectory
from tests.toys import corridor
from tests.toys.agents import FunctionScorer, SeededPolicy
from tests.toys.trajectories import of_steps

GOALS = (1, 2)
TASKS = [
    Task("tests.toys.corridor", f"g{goal}-{n}", Split.DEV, {"goal": goal, "length": 3, "budget": None})
    for goal in GOALS
    for n in range(6)
]


@cache
def pool() -> tuple[Trajectory, ...]:
    return tuple(rollout([(t, s) for t in TASKS for s in range(3)], SeededPolicy(), EpisodeSetting()))


@cache
def exact_value(goal: int, cell: int, turns_left: int) -> float:
    """Chance that a policy of uniform left, right, finish ends on the goal by declaring it."""
    if turns_left == 0:
        return 0.0
    left, right = max(cell - 1, 0), min(cell + 1, 2)
    onwards = exact_value(goal, left, turns_left - 1) + exact_value(goal, right, turns_left - 1)
    return (onwards + float(cell == goal)) / 3


def value_after(task: Task, actions: Sequence[str]) -> float:
    goal, cell = int(task.spec["goal"]), 0
    for action in actions:
        if action == "finish":
            return float(cell == goal)
        cell = min(max(cell + {"left": -1, "right": 1}[action], 0), 2)
    return exact_value(goal, cell, corridor.ROUND_LIMIT - len(actions))


def config(**changes: Any) -> ProbeActionsConfig:
    settings: dict[str, Any] = {
        "environment": "tests.toys.corridor", "model": "-", "trajectories": "-", "num_states": 8,
        "samples_per_state": 16, "actions_per_state": 3, "rollouts": 40, "wave_size": 128,
    }  # fmt: skip
    return ProbeActionsConfig(**{**settings, **changes})


def probe(folder: Path, policy: SeededPolicy | None = None, **changes: Any) -> list[list[ProbedAction]]:
    store = ActionProbe.create(folder, {"seed": changes.get("seed", 0)})
    probe_actions(pool(), policy or SeededPolicy(), config(**changes), store)
    return store.read()


def test_the_actions_of_a_state_share_all_but_the_last_step(tmp_path: Path) -> None:
    states = probe(tmp_path)
    assert len(states) == 8
    for actions in states:
        assert len({a.trajectory.task for a in actions}) == 1
        assert len({a.trajectory.token_ids[: a.trajectory.steps[-1].start] for a in actions}) == 1
        names = [a.action for a in actions]
        assert 2 <= len(set(names)) == len(names) <= 3
        assert [a.frequency for a in actions] == sorted((a.frequency for a in actions), reverse=True)
        assert sum(a.frequency for a in actions) == 16  # of three actions there are, three are kept
        for action in actions:
            assert (action.trajectory.stop is not None) == (action.rollouts == 0)
            if action.action == "finish":
                assert action.trajectory.stop is StopReason.DECLARED


def test_values_are_within_their_error_of_the_exact_ones(tmp_path: Path) -> None:
    n = 600
    for actions in probe(tmp_path, rollouts=n, wave_size=3 * n, num_states=6):
        for action in actions:
            t = action.trajectory
            expected = value_after(t.task, [step.action for step in t.steps])
            error = 4 * math.sqrt(expected * (1 - expected) / n) if t.stop is None else 0.0
            assert abs(action.success - expected) <= error + 1e-9


def test_states_are_spread_over_tasks_and_turns() -> None:
    chosen = list(choose_states(pool(), seed=0))
    tasks = [t.task.id for t, _ in chosen[: len(TASKS)]]
    assert sorted(tasks) == sorted(task.id for task in TASKS)
    assert len({(t.task.id, t.sample) for t, _ in chosen}) == len(chosen)
    assert {0, 1, 2} <= {turn for _, turn in chosen}
    assert all(turn < len(t.steps) for t, turn in chosen)
    states = [(t.task.id, t.token_ids[: t.steps[turn].start]) for t, turn in chosen]
    assert len(set(states)) == len(states)


def test_turns_of_a_trajectory_are_equally_likely() -> None:
    long = [of_steps(steps=4, task=f"t{n}", sample=0) for n in range(4000)]
    turns = [turn for _, turn in choose_states(long, seed=1)]
    for turn in range(4):
        assert turns.count(turn) / len(turns) == pytest.approx(0.25, abs=0.03)


def test_failed_and_empty_trajectories_have_no_states() -> None:
    assert list(choose_states([of_steps(steps=0), of_steps(stop=StopReason.ERROR)], seed=0)) == []


def test_the_seed_decides(tmp_path: Path) -> None:
    first, again, other = (probe(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert first == again
    assert first != other


@pytest.mark.parametrize("wave_size", [1, 48, 4000])
def test_the_size_of_a_wave_changes_no_number(tmp_path: Path, wave_size: int) -> None:
    assert probe(tmp_path / "other", wave_size=wave_size) == probe(tmp_path / "usual")


class Killed(SeededPolicy):
    """Pulls the plug at a call."""

    def __init__(self, at_call: int) -> None:
        super().__init__()
        self.at_call = at_call

    def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
        if len(self.calls) == self.at_call:
            raise KeyboardInterrupt
        return super().act(conversations, seeds)


@pytest.mark.parametrize("at_call", [0, 6, 20])
def test_a_killed_probe_goes_on_to_the_same_bytes(tmp_path: Path, at_call: int) -> None:
    probe(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        probe(tmp_path / "killed", Killed(at_call))
    probe(tmp_path / "killed")
    whole, killed = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("whole", "killed")
    )
    assert killed == whole


def test_a_resumed_probe_repeats_no_rollouts(tmp_path: Path) -> None:
    probe(tmp_path)
    policy = SeededPolicy()
    probe(tmp_path, policy)
    assert max(policy.calls) <= 8 * 16
    assert len(policy.calls) == 1  # the actions of the states, and nothing else


def test_a_probe_that_was_begun_with_other_actions_does_not_go_on(tmp_path: Path) -> None:
    probe(tmp_path)
    wave = tmp_path / "wave-00001.jsonl"
    first, *rest = wave.read_text().splitlines()
    row = json.loads(first)
    wave.write_text("\n".join([json.dumps({**row, "frequency": row["frequency"] + 1}), *rest]) + "\n")
    with pytest.raises(DataError, match="was begun with other actions"):
        probe(tmp_path)


class Meeting(Processes):
    """Processes that are threads of one test."""

    slots: ClassVar[list[Any]] = [None, None]
    barrier: ClassVar[threading.Barrier] = threading.Barrier(2, timeout=60)

    def gather_all(self, own: Any) -> list[Any]:
        self.slots[self.rank] = own
        self.wait()
        found = list(self.slots)
        self.wait()
        return found

    def wait(self) -> None:
        self.barrier.wait()


class Drifting(SeededPolicy):
    """Says other things in each process with the same seeds, as a server in bfloat16 may."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank

    def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
        return super().act(conversations, [seed ^ self.rank << 20 for seed in seeds])


def test_all_processes_estimate_the_actions_of_the_first_one(tmp_path: Path) -> None:
    settings = config(wave_size=80)
    assert find_candidates(pool(), Drifting(0), settings).found[0].key != (
        find_candidates(pool(), Drifting(1), settings).found[0].key
    )
    alone = probe(tmp_path / "alone", Drifting(0), wave_size=80)
    store = ActionProbe.create(tmp_path / "shared", {"seed": 0})

    def work(rank: int) -> dict[str, Any]:
        return probe_actions(pool(), Drifting(rank), settings, store, Meeting(rank, 2))

    with ThreadPoolExecutor(2) as both:
        counts = [future.result() for future in [both.submit(work, rank) for rank in range(2)]]
    assert counts[0] == counts[1]
    shared = [action for of_state in store.read() for action in of_state]
    before = [action for of_state in alone for action in of_state]
    assert [(a.state, a.frequency, a.trajectory) for a in shared] == [
        (a.state, a.frequency, a.trajectory) for a in before
    ]
    assert any(a.success != b.success for a, b in zip(shared, before, strict=True))  # both have estimated


@pytest.mark.parametrize("other", [{"engine": "vllm 2"}, {"dtype": "bfloat16"}, None])
def test_waves_of_another_engine_or_precision_are_refused(
    tmp_path: Path, other: dict[str, str] | None
) -> None:
    def meta(backend: dict[str, str] | None) -> dict[str, object]:
        policy: Any = SimpleNamespace(backend={"engine": "vllm 1", "dtype": "float32"} | (backend or {}))
        return config(server=[] if backend is None else ["http://a"]).estimates_meta(policy)

    store = ActionProbe.create(tmp_path, meta({}))
    store.write(0, [])
    assert ActionProbe.create(tmp_path, meta({})).has(0)
    with pytest.raises(MismatchError, match="backend"):
        ActionProbe.create(tmp_path, meta(other))


def test_estimates_of_one_state_are_independent(tmp_path: Path) -> None:
    # Shared random numbers would make the actions' rollouts move together.
    policy = SeededPolicy()
    probe(tmp_path, policy, num_states=4)
    drawn = [seed for call in policy.seeds for seed in call]
    assert len(set(drawn)) == len(drawn)


def test_states_with_one_action_are_counted_and_replaced(tmp_path: Path) -> None:
    class Decided(SeededPolicy):
        """Certain of its first action, of two minds afterwards."""

        def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
            sampled = super().act(conversations, seeds)
            sure = self._completion("right")
            return [
                c if conversation.steps else sure
                for c, conversation in zip(sampled, conversations, strict=True)
            ]

    found = find_candidates(pool(), Decided(), config())
    assert found.states == 8
    assert found.alike > 0
    assert all(candidate.child.turn > 1 for candidate in found.found)
    with pytest.raises(DataError, match="has two different actions among 16"):
        probe(tmp_path, SeededPolicy(["right"]))


def test_an_action_that_breaks_the_environment_is_left_out(tmp_path: Path) -> None:
    states = probe(tmp_path, SeededPolicy(["right", "crash", "left"]), rollouts=60)
    assert {a.action for actions in states for a in actions} == {"right", "left"}


def test_fewer_states_than_asked_for_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    states = probe(tmp_path, num_states=1000)
    assert f"only {len(states)} of 1000 states" in caplog.text


def test_scorers_of_known_worth(tmp_path: Path) -> None:
    with recorded(tmp_path, "probe-actions", {}):
        probe(tmp_path, num_states=24, rollouts=60)
    scorers = {
        "exact": FunctionScorer(value_after, name="exact"),
        "constant": FunctionScorer(lambda *_: 0.4, name="constant"),
        "inverted": FunctionScorer(lambda *a: -value_after(*a), name="inverted"),
    }
    found = {name: evaluate_discrimination(tmp_path, scorer) for name, scorer in scorers.items()}
    assert found["exact"].telling_states >= 10
    assert found["exact"].gain.mean > 0.9 * found["exact"].attainable.mean > 0
    assert found["exact"].pairwise_accuracy is not None
    assert found["exact"].pairwise_accuracy.mean > 0.95
    assert found["constant"].gain.mean == 0.0
    assert found["inverted"].gain.high < 0.0


def test_an_unfinished_probe_is_not_evaluated(tmp_path: Path) -> None:
    probe(tmp_path)
    with pytest.raises(ArtifactError, match="not a finished probe"):
        evaluate_discrimination(tmp_path, FunctionScorer(value_after))
    with recorded(tmp_path, "collect", {}):
        pass
    with pytest.raises(ArtifactError, match="not a finished probe"):
        evaluate_discrimination(tmp_path, FunctionScorer(value_after))


def test_trajectories_of_another_vocabulary_are_refused(tmp_path: Path) -> None:
    foreign = [replace(t, template="another") for t in pool()]
    with pytest.raises(MismatchError, match="rendered with template another"):
        probe_actions(foreign, SeededPolicy(), config(), ActionProbe.create(tmp_path, {}))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"trajectories": ""}, "trajectories: nothing given"),
        ({"temperature": 0.0}, "temperature: got 0"),
        ({"num_states": 0}, "num_states: got 0, allowed: 1 or more"),
        ({"samples_per_state": 1}, "samples_per_state: got 1, allowed: 2 or more"),
        ({"actions_per_state": 1}, "actions_per_state: got 1, allowed: 2 or more"),
        ({"rollouts": 0}, "rollouts: got 0, allowed: 4 or more"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        config(**change)
