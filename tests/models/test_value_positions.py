"""Where a chain is read, and what its numbers become."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlprm.errors import MismatchError
from rlprm.models.heads import HEADS
from rlprm.models.heads.value_positions import (
    ACTION,
    STATE_AND_ACTION,
    VALUE_READS,
    action_values,
    chain_labels,
    chain_positions,
    step_scores,
)
from rlprm.types import StepLabels
from tests.prm.toy import separable
from tests.toys.trajectories import of_words


@pytest.mark.parametrize("actions", [["right"], ["left", "wait", "right"]])
def test_states_are_read_at_the_last_token_an_action_sees_and_actions_at_their_closing_token(
    actions: list[str],
) -> None:
    made = of_words(actions, True)
    positions = [read.place for read in chain_positions(made, STATE_AND_ACTION)]
    assert len(positions) == 2 * len(actions)
    assert list(positions) == sorted(set(positions))
    for before, after, step in zip(positions[0::2], positions[1::2], made.steps, strict=True):
        assert made.action_mask[before] == 0
        assert made.action_mask[before + 1] == 1
        assert after == step.end
    # The paper's positions are among them: the first state is the prompt's.
    assert (positions[0], *action_values(positions, STATE_AND_ACTION)) == made.value_positions


@pytest.mark.trap("closing message")
def test_trap_nothing_is_read_after_the_last_action() -> None:
    for made in separable(4):
        for reads in VALUE_READS:
            for head in HEADS:
                last = chain_positions(made, reads, head)[-1]
                assert max(last.place, last.stop - 1) == made.steps[-1].end


@given(st.integers(1, 9), st.sampled_from(VALUE_READS))
def test_scores_have_one_value_per_step(steps: int, reads: str) -> None:
    made = of_words(["right"] * steps, True)
    chain = [float(i) for i, _ in enumerate(chain_positions(made, reads))]
    scores = step_scores(chain, reads, tokens=7)
    assert (len(scores.values), len(scores.progress), scores.tokens) == (steps, steps, 7)
    assert scores.values == action_values(chain, reads)


def test_progress_is_the_actions_own_where_states_are_read() -> None:
    chain = [0.5, 0.6, 0.2, 0.25]  # x_1, v_1, x_2, v_2: the observation between the actions was bad luck
    own = step_scores(chain, STATE_AND_ACTION)
    assert own.values == (0.6, 0.25)
    assert own.states == (0.5, 0.2)
    assert own.progress == pytest.approx((0.1, 0.05))
    mixed = step_scores([0.5, 0.6, 0.25], ACTION)
    assert mixed.values == own.values
    assert mixed.progress == pytest.approx((0.1, -0.35))


def test_a_state_has_the_target_of_the_action_that_led_to_it() -> None:
    stored = StepLabels((0.5, 0.25, 1.0), (), (1.0, 0.5, 2.0))
    assert chain_labels(stored) is stored
    chain = chain_labels(stored, STATE_AND_ACTION)  # x_1, v_1, x_2, v_2
    assert chain.promise == (0.5, 0.25, 0.25, 1.0)
    assert chain.weight == (1.0, 0.5, 0.5, 2.0)
    with pytest.raises(
        MismatchError, match="progress belong to value_reads: action, not to state_and_action"
    ):
        chain_labels(StepLabels((0.5, 1.0), (0.5,), (1.0, 1.0)), STATE_AND_ACTION)
