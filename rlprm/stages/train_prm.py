"""Stage 4: trajectories → a trained PRM (or ORM), saved for stock transformers, with its manifest."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedModel

from rlprm import labels
from rlprm.components import user_sources
from rlprm.data.label_files import LabelFile
from rlprm.data.rendering import ChatRenderer
from rlprm.data.store import TrajectoryStore
from rlprm.errors import ConfigError, MismatchError
from rlprm.models.heads import LM, SCALAR
from rlprm.models.hub.four_bits import require_4bit
from rlprm.models.hub.identity import model_files
from rlprm.models.hub.options import with_loading_options
from rlprm.models.loading import context_length_of, load_reward_model, revision_of
from rlprm.models.lora import (
    FULL_PRECISION,
    save_trained,
    trainable_parameters,
    with_adapters,
    without_unused,
)
from rlprm.models.manifest import Manifest
from rlprm.prm.config import PRMConfig
from rlprm.prm.selection import in_own_tokens, split_by_task, usable_trajectories
from rlprm.prm.stored import StoredLabels, labelled_trajectories
from rlprm.prm.trainer import PRMTrainer, prm_arguments
from rlprm.runtime.provenance import settings_of_model, warn_of_differences
from rlprm.runtime.record import is_finished, recorded
from rlprm.training import last_checkpoint, stage_record
from rlprm.types import Trajectory

log = logging.getLogger(__name__)


@with_loading_options
def run(config: PRMConfig) -> None:
    """Train a PRM and save it.

    Raises:
        ArtifactError: if trajectories or weights are missing.
        DataError: if there is nothing to learn from.
        ConfigError: if the cold start would last for the whole run.
        MismatchError: if the trajectories were made by several policies, or in several settings.
        TrainingError: if the loss is not finite.
    """
    arguments = prm_arguments(config)
    store = TrajectoryStore.open(config.trajectories)
    identity = {
        **without_unused(stage_record(config, arguments)),
        "base": revision_of(config.model),
        **model_files(base=config.model),
        "data": dict(store.meta),
    }
    if not config.label_file:
        identity.update(user_sources(label_estimator=labels.load(config.label_estimator)))
    if config.head == SCALAR:  # records from before the lm head have neither setting
        del identity["head"], identity["lm_scale"]
    stored = LabelFile.read(config.label_file) if config.label_file else None
    if stored is not None:
        identity["label_file_meta"] = dict(stored.meta)
    if is_finished(config.output_dir, "train-prm", identity):
        log.info("%s holds the finished PRM of these settings; reusing it", config.output_dir)
        return
    if config.load_in_4bit:
        require_4bit()
    refuse_endless_cold_start(config, epochs=config.num_train_epochs, max_steps=config.max_steps)
    warn_of_differences(f"the model {config.model}", settings_of_model(config.model), store.meta)
    tokenizer = config.load_tokenizer(config.model)
    renderer = ChatRenderer(tokenizer)
    fitting, too_long = in_own_tokens(store.read(), renderer, context_length_of(config.model))
    usable, unusable = usable_trajectories(fitting, config.outcome)
    labelled = usable if stored is None else labelled_trajectories(usable, stored, config.outcome)
    train, held_out = split_by_task(labelled, config.held_out_fraction, config.seed)
    manifest = replace(
        _manifest(config, store, stored, train, renderer.template_hash),
        env_steps=_env_steps(labelled, stored),
    )
    with recorded(config.output_dir, "train-prm", identity) as results:
        dtype = config.weights_dtype(bf16=arguments.bf16)
        model = load_base(config, dtype=dtype, four_bits=config.load_in_4bit)
        model = with_adapters(model, config, seed=config.seed)
        tables = None
        if stored is not None:
            tables = StoredLabels.from_file(stored, train, held_out, config.value_reads)
        trainer = PRMTrainer(model, config, train, held_out, tokenizer, tables, arguments)
        trainer.train(resume_from_checkpoint=last_checkpoint(config.output_dir, identity))
        metrics = trainer.evaluate()
        save_trained(trainer, config.output_dir, lambda: load_base(config, **FULL_PRECISION))
        if trainer.label_table.is_cold:  # max_steps ended the run before the cold start's last epoch
            log.warning("the cold start lasted for the whole run: this PRM learned returns only")
            manifest = replace(
                manifest, label_estimator="returns", label_estimator_kwargs={}, beta=0.0, cold_start_epochs=0
            )
        if trainer.is_world_process_zero():
            manifest.save(config.output_dir)
        results.update(
            chat=renderer.record(), trajectories=len(train), held_out=len(held_out), unusable=unusable,
            too_long=too_long, unlabelled=len(usable) - len(labelled),
            tokens=sum(len(t.token_ids) for t in train) * config.num_train_epochs,
            steps=trainer.state.global_step, trained_parameters=trainable_parameters(model), **metrics,
        )  # fmt: skip


def refuse_endless_cold_start(config: PRMConfig, *, epochs: float, max_steps: int) -> None:
    """Refuse a cold start that lasts for the whole run, which would never use the label estimator.

    Args:
        config: names the labels and the epochs of the cold start.
        epochs: of the run.
        max_steps: of the run; above 0 it replaces ``epochs``, and the check is left to the end of training.

    Raises:
        ConfigError: naming both settings.
    """
    if config.label_file or not labels.load(config.label_estimator).NEEDS_VALUES or max_steps > 0:
        return
    if config.cold_start_epochs >= epochs:
        raise ConfigError(
            f"cold_start_epochs: got {config.cold_start_epochs:g} with num_train_epochs {epochs:g}, allowed: "
            f"fewer; all epochs would learn returns and none {config.label_estimator} labels (to train "
            "that, choose label_estimator returns with beta 0)"
        )


def load_base(config: PRMConfig, **options: Any) -> PreTrainedModel:
    """Load the weights to start from, with the head to train."""
    return load_reward_model(config.model, config.head, scale=config.lm_scale, **options)


def _manifest(
    config: PRMConfig,
    store: TrajectoryStore,
    stored: LabelFile | None,
    train: Sequence[Trajectory],
    template: str,
) -> Manifest:
    made_by = {
        "label_estimator": config.label_estimator,
        "label_estimator_kwargs": config.label_estimator_kwargs,
    }
    return Manifest(
        **(made_by if stored is None else {name: stored.meta[name] for name in made_by}),
        # Without targets of progress there is no progress loss, which is what beta 0 means.
        beta=config.beta if stored is None or stored.has_progress else 0.0,
        loss=config.loss,
        activation=config.activation,
        relabel=config.relabel,
        cold_start_epochs=config.cold_start_epochs if stored is None else 0,
        value_reads=config.value_reads,
        head=config.head,
        lm_scale=config.lm_scale if config.head == LM else None,
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
        temperature=store.meta.get("temperature"),
    )


def _env_steps(trajectories: Sequence[Trajectory], stored: LabelFile | None) -> int:
    rollouts = 0 if stored is None else stored.meta.get("env_steps", 0)
    return sum(len(t.steps) for t in trajectories) + int(rollouts)


def _one(what: str, names: set[str]) -> str:
    """Return the one element; several would mean trajectories of different settings."""
    if len(names) != 1:
        raise MismatchError(
            f"model and trajectories must agree, but there are several {what}: {sorted(names)}"
        )
    return names.pop()
