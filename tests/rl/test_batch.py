"""Episodes laid out as tensors, and dealt out to processes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlprm.data.batching import micro_batches
from rlprm.errors import DataError
from rlprm.rl.batch import Batch, prm_values, split_failed
from rlprm.types import StepScores, StopReason, Trajectory
from tests.toys.trajectories import trajectory


def episodes() -> list[Trajectory]:
    return [
        trajectory("..aaf.ac", task="x", success=True, logprob=-0.5),
        trajectory(".ac", task="y", score=0.25, stop=StopReason.ROUND_LIMIT),
        trajectory(".af.aac.c", task="x", sample=1, stop=StopReason.CONTEXT_LIMIT, logprob=-2.0),
    ]


def test_the_layout_by_hand() -> None:
    batch = Batch.from_trajectories(episodes())
    assert len(batch) == 3
    assert batch.widths_B == (8, 3, 9)
    assert batch.token_ids_BL.tolist() == [
        [1, 2, 3, 4, 5, 6, 7, 8, 0],
        [1, 2, 3, 0, 0, 0, 0, 0, 0],
        [1, 2, 3, 4, 5, 6, 7, 8, 9],
    ]
    assert batch.layout.step_BL.tolist() == [
        [-1, -1, 0, 0, -1, -1, 1, 1, -1],
        [-1, 0, 0, -1, -1, -1, -1, -1, -1],
        [-1, 0, -1, -1, 1, 1, 1, -1, 2],
    ]
    assert batch.starts_BT.tolist() == [[2, 6, 0], [1, 0, 0], [1, 4, 8]]
    assert batch.lengths_B.tolist() == [2, 1, 3]
    assert batch.outcomes_B.tolist() == [1, 0, 0]
    assert batch.success_B.tolist() == [True, False, False]
    assert batch.truncated_B.tolist() == [False, True, True]
    assert batch.groups_B.tolist() == [0, 1, 0]
    sampled = batch.layout.sampled
    assert batch.sampler_logprobs_BL[sampled].tolist() == [-0.5] * 4 + [-1.0] * 2 + [-2.0] * 5
    assert not batch.sampler_logprobs_BL[~sampled].any()


def test_a_graded_outcome_is_learned_from_where_it_is_asked_for() -> None:
    assert Batch.from_trajectories(episodes(), outcome="score").outcomes_B.tolist() == [1.0, 0.25, 0.0]


def test_an_episode_with_a_step_nobody_sampled_is_refused() -> None:
    with pytest.raises(DataError, match="step 2 of row 0 has no token that the policy sampled"):
        Batch.from_trajectories([trajectory(".ac.f")])


def test_values_of_a_prm_are_padded_with_zeros() -> None:
    reads = prm_values([StepScores(0.5, (0.25, 0.75)), StepScores(0.125, (1.0,))])
    assert reads.values_BT1.tolist() == [[0.5, 0.25, 0.75], [0.125, 1.0, 0.0]]
    assert reads.states_BT is None
    with_states = prm_values(
        [StepScores(0.5, (0.25, 0.75), states=(0.5, 0.125)), StepScores(0.125, (1.0,), states=(0.375,))]
    )
    assert with_states.states_BT is not None
    assert with_states.states_BT.tolist() == [[0.5, 0.125], [0.375, 0.0]]


def test_failed_episodes_are_parted_and_truncated_ones_are_kept() -> None:
    broken = trajectory(".ac", stop=StopReason.ERROR)
    never_begun = trajectory("", stop=StopReason.ERROR)
    usable, failed = split_failed([broken, *episodes(), never_begun])
    assert usable == episodes()
    assert failed == [broken, never_begun]


@given(
    widths=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    budget=st.integers(1, 200),
    processes=st.integers(1, 5),
    data=st.data(),
)
def test_every_row_is_taken_once_by_processes_in_step_within_the_budget(
    widths: list[int], budget: int, processes: int, data: st.DataObject
) -> None:
    rows = data.draw(st.lists(st.sampled_from(range(len(widths))), unique=True, min_size=1))
    shares = [
        list(micro_batches(rows, widths, token_budget=budget, rank=rank, processes=processes))
        for rank in range(processes)
    ]
    taken = Counter(row for share in shares for part in share for row in part)
    assert taken == Counter(rows)
    assert len({len(share) for share in shares}) == 1
    for share in shares:
        assert all(share[: sum(map(bool, share))]), "an empty micro-batch before one with rows"
        for part in share:
            assert len(part) <= 1 or len(part) * max(widths[row] for row in part) <= budget
    assert any(share[-1] for share in shares), "a round in which nobody works"
    counts = [sum(map(len, share)) for share in shares]
    assert max(counts) - min(counts) <= 1


def test_the_shares_do_not_depend_on_the_order_of_the_rows() -> None:
    widths = [5, 9, 2, 7, 7, 3]
    for rank in range(2):
        found = [
            list(micro_batches(rows, widths, token_budget=20, rank=rank, processes=2))
            for rows in ([0, 1, 2, 3, 4, 5], [4, 2, 5, 3, 1, 0])
        ]
        assert found[0] == found[1]


def test_nothing_to_share_out_is_nothing_to_do() -> None:
    assert list(micro_batches([], [3], token_budget=5)) == []
    assert torch.equal(Batch.from_trajectories(episodes()[:1]).groups_B, torch.tensor([0]))


@pytest.mark.trap("intermediate reward")
def test_trap_a_reward_before_the_end_is_refused_and_not_forgotten() -> None:
    first, *others = episodes()
    early = replace(first, steps=(replace(first.steps[0], reward=0.5), *first.steps[1:]))
    with pytest.raises(DataError, match=r"step 1 of .* has the intermediate reward 0\.5"):
        Batch.from_trajectories([*others, early])
    at_the_end = replace(first, steps=(*first.steps[:-1], replace(first.steps[-1], reward=0.5)))
    assert len(Batch.from_trajectories([at_the_end])) == 1
