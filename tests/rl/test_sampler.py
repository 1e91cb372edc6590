"""Who acts: waves shared over processes, the weights of the last sync, a saved policy meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rlprm.data.rendering import ChatRenderer
from rlprm.models.loading import revision_of
from rlprm.rl.samplers.local import LocalSampler
from rlprm.runtime.processes import SINGLE_PROCESS, Processes
from rlprm.types import EpisodeSetting, Trajectory
from tests.rl import toy
from tests.rl.toy import Walker, tasks

SETTING = EpisodeSetting(round_limit=6)


def collect(*, wave_size: int = 4, processes: Processes = SINGLE_PROCESS) -> list[Trajectory]:
    jobs = [(task, sample) for task in tasks() for sample in range(3)]
    return toy.PolicySampler(Walker(), wave_size=wave_size, processes=processes).collect(jobs, SETTING)


# --- waves ---


def test_waves_change_nothing() -> None:
    assert collect(wave_size=1) == collect(wave_size=4) == collect(wave_size=100)


def test_what_is_kept_of_a_policys_turns_is_dropped() -> None:
    policy = Walker()
    toy.PolicySampler(policy).collect([(tasks()[0], 0)], SETTING)
    assert policy.forgotten == 1


def test_each_process_runs_its_waves_and_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [(task, sample) for task in tasks() for sample in range(2)]

    def shared(processes: Processes) -> list[Any]:
        return toy.PolicySampler(Walker(), wave_size=3, processes=processes).collect(jobs, SETTING)

    alone = shared(SINGLE_PROCESS)
    held: list[list[Any]] = []

    def gather(self: Processes, own: Sequence[Any]) -> list[Any]:
        held.append(list(own))
        if len(held) < 2:
            return []
        return [held[part % 2][part // 2] for part in range(4)]

    monkeypatch.setattr(Processes, "gather", gather)
    shared(Processes(0, 2))
    assert shared(Processes(1, 2)) == alone
    assert [len(waves) for waves in held] == [2, 2]


def test_no_process_is_idle_while_another_has_a_whole_wave(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def gather(self: Processes, own: list[Any]) -> list[Any]:
        sizes.extend(map(len, own))
        return own

    monkeypatch.setattr(Processes, "gather", gather)
    for rank in range(2):
        sampler = toy.PolicySampler(Walker(), wave_size=64, processes=Processes(rank, 2))
        sampler.collect([(task, 0) for task in tasks(6)], SETTING)
    assert sizes == [3, 3]


# --- whose weights ---


def local(weights: Path, renderer: ChatRenderer) -> tuple[toy.Learner, LocalSampler]:
    learner = toy.learner(weights, learning_rate=0.1, max_new_tokens=5)
    sampler = LocalSampler(learner.config, renderer, learner.engine.processes)
    sampler.sync(learner.engine, version=0)
    return learner, sampler


def episodes(sampler: LocalSampler, **options: Any) -> list[Trajectory]:
    return sampler.collect([(task, 0) for task in tasks(6)], SETTING, **options)


def test_episodes_are_of_the_weights_and_the_version_of_the_last_sync(
    tiny_folder: Path, renderer: ChatRenderer
) -> None:
    learner, sampler = local(tiny_folder, renderer)
    before = episodes(sampler)
    assert {t.policy for t in before} == {"rl-0"}
    batch = toy.batch(8)
    learner.update(batch, toy.random_credit(batch), learner.read_old(batch))
    sampler.sync(learner.engine, version=1)
    after = episodes(sampler)
    assert {t.policy for t in after} == {"rl-1"}
    assert [t.token_ids for t in after] != [t.token_ids for t in before]


def test_a_saved_policy_acts_inside_its_context_and_the_synced_one_again_after_it(
    tiny_folder: Path, renderer: ChatRenderer, tmp_path: Path
) -> None:
    learner, sampler = local(tiny_folder, renderer)
    before = [t.token_ids for t in episodes(sampler)]
    batch = toy.batch(8)
    learner.update(batch, toy.random_credit(batch), learner.read_old(batch))
    trained = [t.token_ids for t in episodes(sampler)]
    assert trained != before
    with sampler.acting_as(str(tiny_folder)):
        inside = episodes(sampler)
    assert [t.token_ids for t in inside] == before
    assert {t.policy for t in inside} == {revision_of(str(tiny_folder))}
    assert [t.token_ids for t in episodes(sampler)] == trained
    learner.engine.save_policy(tmp_path, renderer.tokenizer)
    with sampler.acting_as(str(tmp_path)):
        assert [t.token_ids for t in episodes(sampler)] == trained


def test_greedy_episodes_take_the_most_likely_token(tiny_folder: Path, renderer: ChatRenderer) -> None:
    _, sampler = local(tiny_folder, renderer)
    greedy = episodes(sampler, greedy=True)
    assert {t.temperature for t in greedy} == {0.0}
    assert {t.temperature for t in episodes(sampler)} == {1.0}
    assert [t.token_ids for t in episodes(sampler, greedy=True)] == [t.token_ids for t in greedy]


def test_what_the_policy_offers_for_replays_is_its_template_and_limits(
    tiny_folder: Path, renderer: ChatRenderer
) -> None:
    _, sampler = local(tiny_folder, renderer)
    policy = sampler.policy
    assert policy.renderer.template_hash == renderer.template_hash
    assert (policy.max_new_tokens, policy.temperature) == (5, 1.0)


def test_nothing_acts_before_the_first_sync(tiny_folder: Path, renderer: ChatRenderer) -> None:
    learner = toy.learner(tiny_folder)
    with pytest.raises(RuntimeError, match="after its first sync"):
        episodes(LocalSampler(learner.config, renderer, learner.engine.processes))
