"""A chain of cells as a Markov decision process of a few episodes, all of which can be written down.

The agent starts in cell 0 of three; ``right`` moves on, ``wait`` stays, ``finish`` ends the
episode, a success in the last cell and a failure elsewhere. After ``HORIZON`` steps the
episode is cut off, without success. A state is (steps taken, cell).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

RIGHT, WAIT, FINISH = range(3)
GOAL = 2
HORIZON = 5
VALUE_OF_CELL = (0.3, 0.5, 0.8)
"""A reward model's opinion of being in a cell, not the truth of any policy."""
VALUE_OF_END = {True: 0.9, False: 0.1}


class Episodes(NamedTuple):
    """Every episode there is, padded on the right."""

    states_BT: Tensor
    """Number of the state each action was taken in, ``3 steps + cell``."""
    actions_BT: Tensor
    values_BT1: Tensor
    outcomes_B: Tensor
    lengths_B: Tensor

    @property
    def exists(self) -> Tensor:
        return torch.arange(HORIZON) < self.lengths_B.unsqueeze(1)

    def logprobs(self, logits_SA: Tensor) -> Tensor:
        """Log-probability of each action under a softmax policy, (B, T); 0 in the padding."""
        return logits_SA.log_softmax(1)[self.states_BT, self.actions_BT].where(self.exists, 0.0)

    def chances(self, logits_SA: Tensor) -> Tensor:
        """Probability of each episode; they sum to 1."""
        return self.logprobs(logits_SA).sum(1).exp()


def policy_logits() -> Tensor:
    """A policy without an opinion."""
    return torch.zeros(3 * HORIZON, 3, dtype=torch.float64)


def all_episodes() -> Episodes:
    """Write down every episode."""
    rows = list(_walk(0, 0))
    shape = (len(rows), HORIZON)
    states, actions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    values = torch.full((len(rows), HORIZON + 1), float("nan"), dtype=torch.float64)
    for row, (steps, chain, _) in enumerate(rows):
        values[row, : len(chain)] = torch.tensor(chain)
        for t, (state, action) in enumerate(steps):
            states[row, t], actions[row, t] = state, action
    outcomes = torch.tensor([outcome for _, _, outcome in rows], dtype=torch.float64)
    return Episodes(states, actions, values, outcomes, torch.tensor([len(steps) for steps, _, _ in rows]))


def _walk(taken: int, cell: int) -> Iterator[tuple[list[tuple[int, int]], list[float], float]]:
    """Yield the steps, the values (the present one in front) and the outcome of all that can follow."""
    here = VALUE_OF_CELL[cell]
    if taken == HORIZON:
        yield [], [here], 0.0
        return
    state = 3 * taken + cell
    yield [(state, FINISH)], [here, VALUE_OF_END[cell == GOAL]], float(cell == GOAL)
    for action, following in ((RIGHT, min(cell + 1, GOAL)), (WAIT, cell)):
        for steps, values, outcome in _walk(taken + 1, following):
            yield [(state, action), *steps], [here, *values], outcome
