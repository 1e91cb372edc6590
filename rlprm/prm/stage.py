"""Stage 4: trajectories → a trained PRM (or ORM), saved for stock transformers, with its manifest."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

from rlprm.data.label_files import LabelFile
from rlprm.data.reads import LIKELIHOOD, SCALAR
from rlprm.data.rendering import ChatRenderer
from rlprm.data.rerender import Rerenderer
from rlprm.data.store import TrajectoryStore
from rlprm.errors import DataError, MismatchError
from rlprm.failures import with_outcome
from rlprm.labels import check_no_intermediate_reward
from rlprm.models.loading import (
    context_length_of,
    load_reward_model,
    load_tokenizer,
    revision_of,
)
from rlprm.models.lora import IN_FULL, effective, save_trained, trainable_parameters, with_adapters
from rlprm.models.manifest import Manifest
from rlprm.prm.config import PRMConfig
from rlprm.prm.stored import StoredLabels, labelled_trajectories
from rlprm.prm.trainer import PRMTrainer
from rlprm.stage import is_finished, recorded
from rlprm.training import last_checkpoint, stage_record
from rlprm.types import Trajectory

log = logging.getLogger(__name__)


def run(config: PRMConfig) -> None:
    """Train a PRM and save it.

    Raises:
        ArtifactError: if trajectories or weights are missing.
        DataError: if there is nothing to learn from.
        MismatchError: if the trajectories were made by several policies, or in several settings.
        TrainingError: if the loss is not finite.
    """
    store = TrajectoryStore.open(config.trajectories)
    identity = {
        **effective(stage_record(config)),
        "base": revision_of(config.model),
        "data": dict(store.meta),
    }
    if config.head == SCALAR:  # as before there was another
        del identity["head"], identity["likelihood_scale"]
    stored = LabelFile.read(config.labels) if config.labels else None
    if stored is not None:
        identity["label_file"] = dict(stored.meta)
    if is_finished(config.output_dir, "train-prm", identity):
        log.info("%s holds the finished PRM of these settings; reusing it", config.output_dir)
        return
    tokenizer = load_tokenizer(config.model)
    renderer = ChatRenderer(tokenizer)
    fitting, too_long = in_own_tokens(store.read(), renderer, context_length_of(config.model))
    usable, unusable = usable_trajectories(fitting, config.outcome)
    labelled = usable if stored is None else labelled_trajectories(usable, stored, config.outcome)
    train, held_out = split_by_task(labelled, config.held_out_fraction, config.seed)
    manifest = _manifest(config, store, stored, train, renderer.template_hash)
    with recorded(config.output_dir, "train-prm", identity) as results:
        model = load_base(config, dtype=config.weights_dtype(bf16=config.bf16))
        model = with_adapters(model, config, seed=config.seed)
        tables = None
        if stored is not None:
            tables = StoredLabels.of(stored, train, held_out, config.value_reads)
        trainer = PRMTrainer(model, config, train, held_out, tokenizer, tables)
        trainer.train(resume_from_checkpoint=last_checkpoint(config.output_dir, identity))
        metrics = trainer.evaluate()
        save_trained(trainer, config.output_dir, lambda: load_base(config, **IN_FULL))
        if trainer.is_world_process_zero():
            manifest.save(config.output_dir)
        results.update(
            trajectories=len(train), held_out=len(held_out), unusable=unusable,
            too_long=too_long, unlabelled=len(usable) - len(labelled),
            tokens=sum(len(t.token_ids) for t in train) * config.num_train_epochs,
            trained_parameters=trainable_parameters(model), **metrics,
        )  # fmt: skip


def load_base(config: PRMConfig, **options: Any) -> PreTrainedModel:
    """Load the weights to start from, under the head that is to be trained."""
    return load_reward_model(config.model, config.head, scale=config.likelihood_scale, **options)


def in_own_tokens(
    trajectories: Sequence[Trajectory], renderer: ChatRenderer, context_length: int
) -> tuple[list[Trajectory], int]:
    """Render trajectories of another tokenizer or template again; leave out what then is too long.

    Args:
        trajectories: as stored.
        renderer: of the model that is to read them.
        context_length: the most tokens it takes.

    Returns:
        The trajectories that fit, and how many do not.

    Raises:
        DataError: if none fits.
    """
    own, rerenderer = renderer.template_hash, Rerenderer(renderer)
    foreign = {t.template for t in trajectories} - {own}
    if foreign:
        log.warning(
            "trajectories of template %s are rendered again with the model's own, %s",
            ", ".join(sorted(foreign)), own,
        )  # fmt: skip
    rendered = [rerenderer.render(t) for t in trajectories]
    fitting = [t for t in rendered if len(t.token_ids) <= context_length]
    too_long = len(rendered) - len(fitting)
    if not fitting:
        raise DataError(f"none of the {too_long} trajectories fits into the model's {context_length} tokens")
    if too_long:
        log.warning(
            "%d of %d trajectories do not fit into the model's %d tokens and are left out",
            too_long, len(rendered), context_length,
        )  # fmt: skip
    return fitting, too_long


def usable_trajectories(trajectories: Sequence[Trajectory], outcome: str) -> tuple[list[Trajectory], int]:
    """Leave out trajectories that failed or never acted.

    Args:
        trajectories: as stored.
        outcome: what labels are made of, ``"success"`` or ``"score"``.

    Returns:
        The others, and how many were left out.

    Raises:
        DataError: if nothing remains, or all remaining outcomes are the same (no label could teach anything).
    """
    usable = with_outcome(trajectories)
    for trajectory in usable:
        check_no_intermediate_reward(trajectory)
    if len({t.outcome.value(outcome) for t in usable}) == 1:
        way_out = "choose easier or harder tasks, or another policy"
        if len({t.outcome.score for t in usable}) > 1:
            way_out += ", or set outcome to score, which differs"
        raise DataError(
            f"all {len(usable)} trajectories have the same {outcome}, {usable[0].outcome.value(outcome):g}; "
            f"a PRM needs both successes and failures ({way_out})"
        )
    return usable, len(trajectories) - len(usable)


def split_by_task(
    trajectories: Sequence[Trajectory], fraction: float, seed: int
) -> tuple[list[Trajectory], list[Trajectory]]:
    """Keep a share of the *tasks* for evaluation; all rollouts of a task stay on one side.

    Raises:
        DataError: if there are fewer than two tasks.
    """
    ids = sorted(
        {t.task.id for t in trajectories}, key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest()
    )
    if len(ids) < 2:
        raise DataError(f"a held-out evaluation needs at least two tasks, got {len(ids)}")
    kept = set(ids[: min(max(1, round(fraction * len(ids))), len(ids) - 1)])
    return [t for t in trajectories if t.task.id not in kept], [t for t in trajectories if t.task.id in kept]


def _manifest(
    config: PRMConfig,
    store: TrajectoryStore,
    stored: LabelFile | None,
    train: Sequence[Trajectory],
    template: str,
) -> Manifest:
    made_by = {"estimator": config.estimator, "estimator_kwargs": config.estimator_kwargs}
    return Manifest(
        **(made_by if stored is None else {name: stored.meta[name] for name in made_by}),
        # Labels without targets of progress leave its loss out: that is what beta 0 says.
        beta=config.beta if stored is None or stored.has_progress else 0.0,
        loss=config.loss,
        activation=config.activation,
        refresh=config.refresh,
        cold_start_epochs=config.cold_start_epochs if stored is None else 0,
        value_reads=config.value_reads,
        head=config.head,
        likelihood_scale=config.likelihood_scale if config.head == LIKELIHOOD else None,
        last_step_weight=config.last_step_weight,
        outcome=config.outcome,
        outcome_definition=_one("outcome definitions", {t.outcome.definition for t in train}),
        end=_one("end modes", {t.end.value for t in train}),
        policy=_one("policies", {t.policy for t in train}),
        template=template,
        base=revision_of(config.model),
        **{
            key: store.meta[key]
            for key in ("environment", "env_kwargs", "round_limit", "prompt", "action_format")
        },
    )


def _one(what: str, found: set[str]) -> str:
    if len(found) != 1:
        raise MismatchError(
            f"model and trajectories must agree, but there are several {what}: {sorted(found)}"
        )
    return found.pop()
