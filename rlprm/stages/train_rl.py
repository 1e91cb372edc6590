"""Stage: a policy and a PRM → a better policy, by PPO over turns.

<output_dir>/            the policy, as stock transformers loads it
<output_dir>/summary.json    before and after on test tasks, and what it took
<output_dir>/metrics.jsonl   every iteration
<output_dir>/curves.png
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rlprm import envs
from rlprm.data.rendering import ChatRenderer
from rlprm.errors import ConfigError, DataError
from rlprm.models import zero
from rlprm.models.hub.four_bits import require_4bit
from rlprm.models.hub.identity import model_files
from rlprm.models.hub.options import with_loading_options
from rlprm.models.hub.size import count_weights
from rlprm.models.loading import revision_of
from rlprm.models.lora import trainable_parameters, without_unused
from rlprm.models.precision import computes_in_bfloat16
from rlprm.models.sampled_tokens import check_logits
from rlprm.rl.batch import split_failed
from rlprm.rl.config import RLConfig
from rlprm.rl.engine import make_engine, start_accelerator
from rlprm.rl.keeping.checkpoints import has_checkpoint, load_ahead, load_newest
from rlprm.rl.loading import load_model, load_scorer
from rlprm.rl.monitor.curves import plot_curves
from rlprm.rl.monitor.measure import TaskResults, measure_saved, paired_differences
from rlprm.rl.monitor.repeat_probe import Repeat, RepeatProbe, probe_repeats, repeat_actions
from rlprm.rl.monitor.rounding import LoadRounding, measure_rounding
from rlprm.rl.monitor.undeclared import undeclared_gain
from rlprm.rl.samplers.ahead import Ahead
from rlprm.rl.samplers.base import Sampler
from rlprm.rl.samplers.local import LocalSampler
from rlprm.rl.samplers.server import ServerSampler
from rlprm.rl.schedule import learning_rate_factor
from rlprm.rl.selection.signal import MOST_ROUNDS
from rlprm.rl.state import Changes, RunState, changes, is_extension, with_changes
from rlprm.rl.trainer import RLTrainer
from rlprm.runtime.files import read_json, write_json
from rlprm.runtime.overwrite import is_overwriting
from rlprm.runtime.parsing.renames import current_settings
from rlprm.runtime.processes import Processes, collective
from rlprm.runtime.provenance import warn_of_policy
from rlprm.runtime.record import has_record, is_finished, read_record, recorded
from rlprm.runtime.settings import own_settings
from rlprm.runtime.supervision.heartbeat import watched_processes
from rlprm.runtime.supervision.signals import listening
from rlprm.runtime.tracking import Tracker
from rlprm.stages.train_rl_parts.refresh import check_refresh, refresh_prm
from rlprm.types import Split, Trajectory

log = logging.getLogger(__name__)
_EPISODES_TO_READ = 8
_TRIES_OF_A_PROBE = 4  # episodes run for each one that the probe needs
_NOT_IDENTITY = (
    "save_every",
    "keep_checkpoints",
    "table_every",
    "log_artifacts",
    "micro_batch_tokens",
    "max_sampler_mismatch",
)
"""Settings that do not change the result."""
_COMPARED = ("before", "after", "difference")
_COUNTED_BY = {
    Split.TRAIN: "first_task and num_tasks",
    Split.DEV: "eval_tasks",
    Split.TEST: "test_tasks",
}


@with_loading_options
def run(config: RLConfig) -> dict[str, Any]:
    """Train a policy by RL and save it; returns the summary.

    Settings that depend on the size of the model are chosen first. Several processes share all work; they
    give the result of one.

    Raises:
        ArtifactError: if the policy or the PRM is missing.
        MismatchError: if the PRM was trained in another setting than it is used in, or the folder holds
            another run.
        TrainingError: if something is not finite.
        RunInterruptedError: after SIGTERM or SIGINT.
    """
    folder = Path(config.output_dir)
    config = config.settled(parameters=count_weights(config.model))
    if config.bf16 is None and not torch.cuda.is_available() and computes_in_bfloat16(config.model):
        config = replace(config, bf16=True)  # recorded: another processor would compute in float32
    identity = _identity(config)
    if not _goes_on(folder, identity) and is_finished(folder, "train-rl", identity):
        log.info("%s holds the finished policy of these settings; reusing it", folder)
        summary: dict[str, Any] = read_json(folder / "summary.json")
        return summary
    if config.load_in_4bit:
        require_4bit()
    config.require_positions()
    warn_of_policy(config)
    check_refresh(config)
    _check_tasks(config)
    accelerator = start_accelerator(
        bf16=computes_in_bfloat16(config.model) if config.bf16 is None else config.bf16
    )
    computes_in_bf16 = accelerator.mixed_precision == "bf16"
    with (
        listening() as signals,
        watched_processes(config.heartbeat_timeout),
        recorded(folder, "train-rl", identity) as results,
    ):
        tokenizer = config.load_tokenizer(config.model)
        model = load_model(config, on=accelerator.device, bf16=computes_in_bf16)
        trained = trainable_parameters(model)
        engine = make_engine(model, config, accelerator)
        processes = engine.processes
        with engine.acting() as policy:
            check_logits(policy)
        changed: Changes = {}
        if (found := load_newest(engine, folder, identity)) is None:
            state = RunState(prm=config.prm)
        else:
            state, changed = found
            log.info("%s: going on after iteration %d", folder, state.iteration)
            for name, (old, new) in changed.items():
                log.warning("from here on %s is %s, not %s", name, new, old)
            state = with_changes(state, changed, factor=_last_factor(config, state, changed))
        sampler = _sampler(
            config, ChatRenderer(tokenizer), processes, "bfloat16" if computes_in_bf16 else "float32"
        )
        tracker = Tracker(
            config.report_to if processes.is_main else "none",
            name=folder.name, config=identity, folder=folder, resumes=True,
        )  # fmt: skip
        trainer = RLTrainer(
            config,
            engine,
            sampler,
            tokenizer,
            load_scorer=lambda path: load_scorer(path, config),
            refresh=partial(refresh_prm, config),
            state=state,
            settings=identity,
            changed=changed,
            tracker=tracker,
            ahead=_ahead(config, sampler),
            signals=signals,
        )
        before = _before(trainer)
        probe = _probe(trainer)
        trainer.train()
        summary = _finish(trainer, before, probe)
        summary["trained_parameters"] = trained
        summary["processes"] = {"count": processes.count, "zero_stage": zero.zero_stage()}
        if processes.is_main:
            write_json(folder / "summary.json", summary)
            plot_curves(trainer.journal.rows, folder / "curves.png")
            tracker.log_images([folder / "curves.png"], trainer.state.iteration)
            if config.log_artifacts:
                tracker.log_artifact(folder, folder.name)
        tracker.finish()
        results.update({k: summary[k] for k in ("env_steps", "tokens", "alarm", "selected_iteration")})
        results.update({k: summary[k] for k in (*_COMPARED, "bf16_load") if k in summary})
    return summary


def _goes_on(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Whether a finished run is to have more iterations, from its newest checkpoint on.

    Raises:
        ConfigError: if the run has kept no checkpoint.
    """
    if not has_record(folder) or is_overwriting():
        return False
    record = read_record(folder)
    before, now = current_settings("train-rl", record["config"]), json.loads(json.dumps(dict(identity)))
    if record["stage"] != "train-rl" or not is_extension(before, now):
        return False
    changes(f"{folder} holds a finished run", before, now)
    if not has_checkpoint(folder):
        raise ConfigError(
            f"iterations: {folder} holds a finished run without a checkpoint, so it cannot go on; choose "
            "another output_dir"
        )
    return True


def _last_factor(config: RLConfig, state: RunState, changed: Changes) -> float:
    """Return the learning rate's factor in the last iteration."""
    return learning_rate_factor(
        state.iteration - 1,
        changed.get("iterations", (config.iterations,))[0],
        schedule=config.lr_schedule,
        warmup=config.warmup_iterations,
        critic_warmup=config.critic_only_iterations,
        minimum=config.min_learning_rate,
        since=state.rate_from,
        start=state.rate_factor,
    )


def _sampler(config: RLConfig, renderer: ChatRenderer, processes: Processes, saved_dtype: str) -> Sampler:
    """Return what acts: this process, or servers."""
    if not config.server:
        return LocalSampler(config, renderer, processes, saved_dtype=saved_dtype)
    return ServerSampler(config, config.connect(check_weights=False), processes)


def _ahead(config: RLConfig, sampler: Sampler) -> Ahead | None:
    """Return what runs the next iteration's episodes meanwhile, with those that a checkpoint holds."""
    if not (config.max_staleness and isinstance(sampler, ServerSampler)):
        return None
    return Ahead(sampler, load_ahead(Path(config.output_dir)))


def _check_tasks(config: RLConfig) -> None:
    """Refuse a run that would come to the end of its tasks after hours.

    Raises:
        ConfigError: if a split has fewer tasks than the run will ask for.
    """
    rounds = 1 + (MOST_ROUNDS if config.dynamic_sampling else 0)
    reached = min(config.num_tasks, config.iterations * config.tasks_per_iteration * rounds)
    last = {
        Split.TRAIN: config.first_task + (1 if config.shuffle_tasks else reached),
        Split.DEV: config.eval_tasks if config.eval_every else 0,
        Split.TEST: config.test_tasks,
    }
    for split, end in last.items():
        if not end:
            continue
        try:
            envs.tasks(config.environment, split, end - 1, 1, config.env_kwargs)
        except ConfigError as error:
            names = _COUNTED_BY[split]
            raise ConfigError(f"the {split} split has too few tasks for {names}: {error}") from error


def _identity(config: RLConfig) -> dict[str, Any]:
    record = {k: v for k, v in without_unused(own_settings(config)).items() if k not in _NOT_IDENTITY}
    revisions = {name: revision_of(path) for name, path in _models(config).items()}
    return {**record, "revisions": revisions, **model_files(**_models(config)), **config.sources()}


def _models(config: RLConfig) -> Mapping[str, str]:
    named = {"policy": config.model, "prm": config.prm, "critic": config.critic_model}
    return {name: path for name, path in named.items() if path}


@collective
def _before(trainer: RLTrainer) -> TaskResults | None:
    """Measure the policy before RL on test tasks; a resumed run reads the results from disk."""
    config, file = trainer.config, trainer.folder / "before.json"
    if not config.test_tasks:
        return None
    # Results of 0.1.0 and before lack what is counted of the messages, and may lack declared ends and scores.
    is_same = not trainer.changed.keys() & {"test_tasks", "test_samples"}
    if is_same and trainer.state.iteration and file.exists() and "messages" in (stored := read_json(file)):
        return TaskResults(**stored)
    results = _measure_test(trainer, config.model)
    if trainer.processes.is_main:
        write_json(file, asdict(results))
    return results


def _measure_test(trainer: RLTrainer, model: str) -> TaskResults:
    config = trainer.config
    return measure_saved(
        trainer.sampler, model, config, Split.TEST, config.test_tasks, config.test_samples
    )  # fmt: skip


@collective
def _probe(trainer: RLTrainer) -> RepeatProbe | None:
    """Test before training whether the reward pays for idling; a resumed run reads the result from disk."""
    config, file = trainer.config, trainer.folder / "repeat_probe.json"
    if trainer.scorer is None or not config.repeat_probe:
        return None
    if file.exists() and trainer.state.iteration:
        return RepeatProbe(**stored) if (stored := read_json(file)) else None
    trajectories, _ = split_failed(trainer.collect(0, at_most=_TRIES_OF_A_PROBE * config.repeat_probe))
    probe = probe_repeats(
        _repeats(trainer, trajectories), trainer.scorer, config.credit_setting()
    )  # fmt: skip
    if trainer.processes.is_main:
        write_json(file, None if probe is None else asdict(probe))
    if probe is not None and probe.is_hackable:
        log.warning(
            "reward %s pays %.3f for an action repeated without effect (a step: %.3f): it may be farmed",
            config.reward, probe.paid_per_repeat, probe.paid_per_step,
        )  # fmt: skip
    return probe


def _repeats(trainer: RLTrainer, trajectories: Sequence[Trajectory]) -> list[Repeat]:
    """Repeat actions in the environment, which the first process alone asks; all get the episodes."""
    found: list[Repeat] = []
    if trainer.processes.is_main:
        config = trainer.config
        try:
            found = repeat_actions(
                trajectories, trainer.sampler.policy, trainer.setting_at(0),
                episodes=config.repeat_probe, seed=config.seed,
            )  # fmt: skip
        except DataError as error:  # the environment does not repeat itself
            log.warning("the probe with repeated actions is left out: %s", error)
    from_first: list[Repeat] = trainer.processes.gather_all(found)[0]
    return from_first


@collective
def _finish(trainer: RLTrainer, before: TaskResults | None, probe: RepeatProbe | None) -> dict[str, Any]:
    """Select the policy, save it, measure it on test tasks; returns the summary."""
    config, state, folder = trainer.config, trainer.state, trainer.folder
    selected = state.iteration
    if config.select == "best" and state.best_iteration >= 0:
        selected = state.best_iteration
        if trainer.processes.is_main:
            shutil.copytree(trainer.best_folder(), folder, dirs_exist_ok=True)
        trainer.processes.wait()
    else:
        trainer.engine.save_policy(folder, trainer.tokenizer)
    summary: dict[str, Any] = {
        "reward": config.reward,
        "advantage": config.advantage,
        "outcome": config.outcome,
        "iterations": state.iteration,
        "selected_iteration": selected,
        "env_steps": state.env_steps,
        "prm_env_steps": trainer.prm_env_steps,
        "tokens": state.tokens,
        "seconds": dict(state.seconds),
        "alarm": list(state.alarms.values()),
        "rollbacks": state.rollbacks,
    }
    rounding = _rounding(trainer)
    if rounding is not None:
        summary["bf16_load"] = asdict(rounding)
    if probe is not None:
        summary["repeat_probe"] = {**asdict(probe), "is_hackable": probe.is_hackable}
    if before is not None:
        after = _measure_test(trainer, str(folder))
        summary["alarm"] += _undeclared(before, after)
        summary |= {
            "before": before.as_json(),
            "after": after.as_json(),
            "difference": paired_differences(before, after),
        }
        if trainer.processes.is_main:
            write_json(folder / "after.json", asdict(after))
            _log_comparison(summary)
            for text in summary["alarm"][len(state.alarms) :]:
                log.warning("reward hacking alarm, %s", text)
    return summary


@collective
def _rounding(trainer: RLTrainer) -> LoadRounding | None:
    """Measure what a bfloat16 load of the saved policy loses; every process gets the result."""
    # A run that was resumed behind its last iteration has no episodes at hand.
    episodes = trainer.newest or split_failed(trainer.collect(0, at_most=_EPISODES_TO_READ))[0]
    found = None
    if trainer.processes.is_main:
        found = measure_rounding(str(trainer.folder), trainer.config.model, episodes)
    from_first: LoadRounding | None = trainer.processes.gather_all(found)[0]
    return from_first


def _undeclared(before: TaskResults, after: TaskResults) -> list[str]:
    """Compare the declared successes of the policies before and after RL, sampled and greedy."""
    found = []
    for how in ("sample", "greedy"):
        names = (how, f"{how}_declared_success")
        old, new = ([results.measured().get(name, {}) for name in names] for results in (before, after))
        if not all((*old, *new)):  # end: on_success
            continue
        text = undeclared_gain(*(list(per_task.values()) for per_task in (*old, *new)))
        if text is not None:
            found.append(f"test tasks, {how}: {text}")
    return found


def _log_comparison(summary: Mapping[str, Any]) -> None:
    names = {"sample": "sample success", "greedy": "greedy success"}
    if any(summary[when][f"{how}_score"] != summary[when][how] for when in _COMPARED for how in names):
        names |= {"sample_score": "sample score", "greedy_score": "greedy score"}
    declared = {"sample_declared_success": "sample", "greedy_declared_success": "greedy"}
    for key, how in declared.items():
        if any(key in summary[when] and summary[when][key] != summary[when][how] for when in _COMPARED):
            names[key] = f"{how} success that the agent declared"
    for key, name in names.items():
        b, a, d = (summary[when][key] for when in _COMPARED)
        log.info(
            "%s on %d test tasks: %.1f %% -> %.1f %%, %+.1f points, 95 %% [%+.1f, %+.1f]",
            name, summary["after"]["tasks"], 100 * b["mean"], 100 * a["mean"],
            100 * d["mean"], 100 * d["low"], 100 * d["high"],
        )  # fmt: skip
