"""Ratios of tokens, groups without signal, kinds of tasks and costs, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from rlprm.rl.batch import Batch
from rlprm.rl.monitor.costs import peak_memory, tokens_per_second
from rlprm.rl.monitor.diagnostics import signal_metrics
from rlprm.rl.monitor.ratios import RatioReport
from rlprm.rollouts.waves import rollout
from rlprm.types import EpisodeSetting, Outcome, Task, Trajectory
from tests.rl import toy


def report(*ratios_and_advantages: tuple[float, float]) -> RatioReport:
    found = RatioReport(low=0.2, high=0.3)
    ratios, advantages = map(torch.tensor, zip(*ratios_and_advantages, strict=True))
    found.add(ratios.log(), torch.zeros(len(ratios)), advantages)
    return found


def test_extremes_and_both_ends_of_the_clip_range_over_two_processes() -> None:
    first = report((0.5, -1.0), (0.5, 1.0), (1.0, 1.0))  # below counts only where the advantage is negative
    second = report((1.25, 1.0), (1.4, 2.0), (4.0, -1.0))  # 1.25 is within 0.3
    found = RatioReport.summary(first.own(0, 3) + second.own(1, 3), tokens=6)  # rank 2 had no rows
    assert found == pytest.approx(
        {"ratio_min": 0.5, "ratio_max": 4.0, "clip_low_fraction": 1 / 6, "clip_high_fraction": 1 / 6}
    )


def test_what_is_not_finite_is_left_out() -> None:
    found = report((2.0, 1.0))
    found.add(torch.tensor([math.nan]), torch.zeros(1), torch.ones(1))
    assert RatioReport.summary(found.own(0, 1), tokens=2)["ratio_max"] == pytest.approx(2.0)


def walk() -> Trajectory:
    setting = EpisodeSetting(round_limit=2)
    return rollout([(toy.tasks(1)[0], 0)], toy.Walker(), setting)[0]


def episodes(*said: tuple[str, str, bool]) -> tuple[list[Trajectory], Batch]:
    """Episodes of (task, kind, success)."""
    pattern = walk()
    found = [
        replace(
            pattern,
            task=Task(pattern.task.environment, task, pattern.task.split, {"level": kind} if kind else {}),
            outcome=Outcome(float(success), success, "toy"),
        )
        for task, kind, success in said
    ]
    return found, Batch.from_trajectories(found)


def test_groups_without_signal_and_the_success_of_each_kind() -> None:
    found = signal_metrics(
        *episodes(
            ("a", "near", True), ("a", "near", True), ("b", "near", False), ("b", "near", True),
            ("c", "far", False), ("c", "far", False), ("d", "far", True),
        )
    )  # fmt: skip
    # d has one episode, which is compared with none.
    assert found == pytest.approx(
        {"groups_without_signal": 2 / 3, "success/near": 3 / 4, "success/far": 1 / 3}
    )


def test_one_kind_or_one_episode_a_task_says_nothing() -> None:
    assert signal_metrics(*episodes(("a", "near", True), ("b", "near", False))) == {}


def test_micro_batches_of_a_failed_attempt_are_forgotten() -> None:
    found = report((1.5, 1.0))
    before, begun = found.own(0, 1), len(found)
    found.add(torch.tensor([2.0]), torch.zeros(1), torch.ones(1))
    assert not torch.equal(found.own(0, 1), before)
    found.cut(begun)
    assert torch.equal(found.own(0, 1), before)


def test_the_ratio_of_a_message_is_the_geometric_mean_of_its_tokens() -> None:
    found = RatioReport(low=0.2, high=0.2)
    found.add(torch.tensor([0.4, 0.0, -0.6]), torch.zeros(3), torch.ones(3), torch.tensor([0, 0, 1]))
    summary = RatioReport.summary(found.own(0, 1), tokens=3)
    assert summary["ratio_max"] == pytest.approx(math.exp(0.2), rel=1e-6)
    assert summary["ratio_min"] == pytest.approx(math.exp(-0.6), rel=1e-6)
    assert summary["clip_high_fraction"] == pytest.approx(2 / 3)  # exp(0.2) is above 1.2, for both tokens


def test_rates_and_peaks() -> None:
    rates = tokens_per_second(
        {"time/rollout": 2.0, "time/score": 0.0}, {"rollout": 300, "score": 5, "update": 7}
    )
    assert rates == {"time/rollout_tokens_per_second": 150.0}
    before = peak_memory()["memory/host_peak_gib"]
    assert 0.01 < before < 1000
    block = torch.ones(100 * 2**20)  # 400 MiB
    assert peak_memory()["memory/host_peak_gib"] >= before
    assert block.numel() == 100 * 2**20
