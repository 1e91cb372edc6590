"""A policy's own trajectories as what ``rlprm sft`` learns: the clone of the successes.

The clone is the baseline that costs what a PRM costs: the same trajectories, outcomes and optimiser steps.
"""

from __future__ import annotations

import math
import sys
from typing import NamedTuple

from transformers import TrainingArguments

from rlprm.data.failures import with_outcome
from rlprm.data.rendering import ChatRenderer
from rlprm.data.store import TrajectoryStore
from rlprm.errors import DataError
from rlprm.prm.selection import in_own_tokens, split_by_task
from rlprm.stages.settings import SFTStageConfig
from rlprm.types import Trajectory

__all__ = ["Chosen", "choose_trajectories", "steps_over"]


class Chosen(NamedTuple):
    """The trajectories to learn."""

    learned: list[Trajectory]
    """In the tokens of the model."""
    given: int
    """Number of trajectories that a PRM would learn from, failures among them."""
    too_long: int
    """Number of trajectories left out because of their length."""


def choose_trajectories(store: TrajectoryStore, config: SFTStageConfig, renderer: ChatRenderer) -> Chosen:
    """Choose what is learned, as ``train-prm`` chooses: usable, not too long, of tasks that are not held out.

    Raises:
        DataError: if nothing is left.
        MismatchError: for a trajectory of another environment.
    """
    length = config.max_length or sys.maxsize
    fitting, too_long = in_own_tokens(store.read_of(config.environment), renderer, length)
    given = with_outcome(fitting)
    if config.held_out_fraction:
        given, _ = split_by_task(given, config.held_out_fraction, config.seed)
    learned = [t for t in given if t.outcome.success or not config.only_successes]
    if not learned:
        raise DataError(
            f"none of the {len(given)} trajectories in {config.trajectories} is a success; choose easier "
            "tasks, or set only_successes to false"
        )
    return Chosen(learned, len(given), too_long)


def steps_over(rows: int, arguments: TrainingArguments) -> int:
    """Return the optimiser steps that the epochs of these arguments take over a number of rows."""
    batches = math.ceil(rows / (int(arguments.per_device_train_batch_size) * int(arguments.world_size)))
    steps = math.ceil(batches / int(arguments.gradient_accumulation_steps))
    return math.ceil(float(arguments.num_train_epochs) * steps)
