"""Trajectories → step labels on disk, to look at or to train on.

The PRM trainer makes its own labels at every refresh; this stage writes the
same ones down: those that need no model (``outcome``, ``returns``) and, with ``--model``,
TD-GAE labels under that model's values.
"""

from __future__ import annotations

import logging

import torch

from rlprm import labels
from rlprm.components import user_sources
from rlprm.data.batching import budget_batches
from rlprm.data.failures import with_outcome
from rlprm.data.label_files import write_labels
from rlprm.data.store import TrajectoryStore
from rlprm.models.hub.options import with_loading_options
from rlprm.runtime.processes import Processes, start_processes
from rlprm.scorers.checkpoint import CheckpointScorer
from rlprm.scorers.distributed import DistributedScorer
from rlprm.stages.settings import LabelConfig
from rlprm.types import StepLabels, StepScores, Trajectory

log = logging.getLogger(__name__)
_ROWS_AT_ONCE = 4096


@with_loading_options
def run(config: LabelConfig) -> None:
    """Label every trajectory that can be labelled, and write one line for each.

    Raises:
        ArtifactError: if trajectories or PRM are missing.
        DataError: if no trajectory can be labelled.
        MismatchError: if the PRM was trained in another setting than the trajectories come from.
    """
    store = TrajectoryStore.open(config.trajectories)
    usable = with_outcome(store.read())
    processes = start_processes()
    scores = _scores(config, store, usable, processes) if config.model else None
    if not processes.is_main:
        return
    rows = label_trajectories(usable, scores, config)
    write_labels(
        config.output,
        usable,
        rows,
        label_estimator=config.label_estimator,
        label_estimator_kwargs=config.label_estimator_kwargs,
        outcome=config.outcome,
        data=dict(store.meta),
        **user_sources(label_estimator=labels.load(config.label_estimator)),
    )
    log.info("%d trajectories labelled with %s: %s", len(usable), config.label_estimator, config.output)


def label_trajectories(
    trajectories: list[Trajectory], scores: list[StepScores] | None, config: LabelConfig
) -> list[StepLabels]:
    """Return the labels of each trajectory, in order.

    Args:
        trajectories: each with at least one step.
        scores: values of a model; None where the estimator needs none.
        config: names the estimator and the outcome.
    """
    estimator = labels.load(config.label_estimator)
    found: dict[int, StepLabels] = {}
    for batch in budget_batches([len(t.steps) for t in trajectories], _ROWS_AT_ONCE):
        for index in batch:
            labels.check_no_intermediate_reward(trajectories[index])
        outcomes = [trajectories[i].outcome for i in batch]
        lengths = torch.tensor([len(trajectories[i].steps) for i in batch])
        values = None if scores is None else _values([scores[i] for i in batch], int(lengths.max()))
        made = labels.make_labels(
            estimator,
            values,
            torch.tensor([o.value(config.outcome) for o in outcomes]),
            lengths,
            config.label_estimator_kwargs,
        )
        found.update(zip(batch, labels.to_step_labels(made, lengths), strict=True))
    return [found[index] for index in range(len(trajectories))]


def _scores(
    config: LabelConfig, store: TrajectoryStore, trajectories: list[Trajectory], processes: Processes
) -> list[StepScores]:
    scorer = CheckpointScorer.load("prm", config.model)
    setting = {name: store.meta[name] for name in ("prompt", "action_format") if name in store.meta}
    scorer.manifest.require(end=trajectories[0].end.value, outcome=config.outcome, **setting)
    return DistributedScorer(scorer, processes).score(trajectories)


def _values(scores: list[StepScores], width: int) -> torch.Tensor:
    rows = [(s.initial, *s.values) for s in scores]
    return torch.tensor([[*row, *[0.0] * (width + 1 - len(row))] for row in rows])
