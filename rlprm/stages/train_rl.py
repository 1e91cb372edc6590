"""Stage 5: a policy and a PRM → a better policy, by PPO over turns.

<output_dir>/            the policy, as stock transformers loads it
<output_dir>/summary.json    before and after on test tasks, and what it took
<output_dir>/metrics.jsonl   every iteration
<output_dir>/curves.png
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from rlprm import envs
from rlprm.data.rendering import ChatRenderer
from rlprm.errors import DataError
from rlprm.models import zero
from rlprm.models.loading import load_tokenizer, revision_of
from rlprm.models.lora import effective, trainable_parameters
from rlprm.models.sampled_tokens import check_logits
from rlprm.rl.batch import split_failed
from rlprm.rl.checkpoints import RunState, load_newest
from rlprm.rl.config import RLConfig
from rlprm.rl.engine import start_accelerator
from rlprm.rl.learner import Learner
from rlprm.rl.loading import load_model, load_scorer
from rlprm.rl.monitor.curves import plot_curves
from rlprm.rl.monitor.measure import TaskResults, paired_differences
from rlprm.rl.monitor.repeat_probe import RepeatProbe, probe_repeats
from rlprm.rl.refresh import check_relabelling
from rlprm.rl.trainer import RLTrainer
from rlprm.runtime.config import own_settings
from rlprm.runtime.files import read_json, write_json
from rlprm.runtime.processes import is_first
from rlprm.runtime.provenance import warn_of_policy
from rlprm.runtime.record import is_finished, recorded
from rlprm.runtime.tracking import Tracker
from rlprm.types import Split

log = logging.getLogger(__name__)
_TRIES_OF_A_PROBE = 4  # episodes that are run for each one that is looked for
_NOT_IDENTITY = ("save_every", "keep_checkpoints", "table_every", "log_artifacts", "micro_batch_tokens")
"""Settings that say how, not what."""
_COMPARED = ("before", "after", "difference")


def run(config: RLConfig) -> dict[str, Any]:
    """Train a policy by RL and save it; returns the summary.

    Several processes share all work; they give the result of one.

    Raises:
        ArtifactError: if the policy or the PRM is missing.
        MismatchError: if the PRM was trained in another setting than it is used in, or the folder holds
            another run.
        TrainingError: if something is not finite.
    """
    folder = Path(config.output_dir)
    identity = _identity(config)
    if is_finished(folder, "train-rl", identity):
        log.info("%s holds the finished policy of these settings; reusing it", folder)
        summary: dict[str, Any] = read_json(folder / "summary.json")
        return summary
    config.require_positions()
    warn_of_policy(config)
    check_relabelling(config)
    _check_tasks(config)
    accelerator = start_accelerator(bf16=config.bf16)
    with recorded(folder, "train-rl", identity) as results:
        tokenizer = load_tokenizer(config.model)
        model = load_model(config, on=accelerator.device, bf16=accelerator.mixed_precision == "bf16")
        trained = trainable_parameters(model)
        learner = Learner(model, config, accelerator)
        with learner.acting() as whole:
            check_logits(whole.policy)
        state = load_newest(learner, folder, identity)
        if state is None:
            state = RunState(prm=config.prm)
        else:
            log.info("%s: going on after iteration %d", folder, state.iteration)
        report_to = config.report_to if learner.processes.is_main else "none"
        tracker = Tracker(report_to, name=folder.name, config=identity, folder=folder)
        trainer = RLTrainer(
            config,
            learner,
            ChatRenderer(tokenizer),
            load_scorer=lambda path: load_scorer(path, config),
            state=state,
            settings=identity,
            tracker=tracker,
        )
        before = _before(trainer, folder)
        probe = _probe(trainer, folder)
        trainer.train()
        summary = _finish(trainer, tokenizer, before, probe)
        summary["trained_parameters"] = trained
        summary["processes"] = {"count": learner.processes.count, "zero_stage": zero.zero_stage()}
        if learner.processes.is_main:
            write_json(folder / "summary.json", summary)
            plot_curves(trainer.journal.rows, folder / "curves.png")
            tracker.log_images([folder / "curves.png"], state.iteration)
            if config.log_artifacts:
                tracker.log_artifact(folder, folder.name)
        tracker.finish()
        results.update({k: summary[k] for k in ("env_steps", "tokens", "alarm", "selected_iteration")})
        results.update({k: summary[k] for k in _COMPARED if k in summary})
    return summary


def _check_tasks(config: RLConfig) -> None:
    """Refuse a run that would come to the end of its tasks after hours.

    Raises:
        ConfigError: if a split has fewer tasks than the run will ask for.
    """
    reached = min(config.num_tasks, config.iterations * config.tasks_per_iteration)
    last = {
        Split.TRAIN: config.first_task + reached,
        Split.DEV: config.eval_tasks if config.eval_every else 0,
        Split.TEST: config.test_tasks,
    }
    for split, end in last.items():
        if end:
            envs.tasks(config.environment, split, end - 1, 1, config.env_kwargs)


def _identity(config: RLConfig) -> dict[str, Any]:
    record = {k: v for k, v in effective(own_settings(config)).items() if k not in _NOT_IDENTITY}
    revisions = {name: revision_of(path) for name, path in _models(config).items()}
    return {**record, "revisions": revisions, **config.sources()}


def _models(config: RLConfig) -> Mapping[str, str]:
    named = {"policy": config.model, "prm": config.prm, "critic": config.critic_model}
    return {name: path for name, path in named.items() if path}


def _before(trainer: RLTrainer, folder: Path) -> TaskResults | None:
    """Measure the policy before RL on test tasks, once: a run that goes on has it on disk."""
    config, file = trainer.config, folder / "before.json"
    if not config.test_tasks:
        return None
    measured = trainer.measured
    if trainer.state.iteration:
        if file.exists() and "sample_score" in (known := read_json(file)):
            return TaskResults(**known)
        # Earlier versions kept no scores; by now the policy under training is another one.
        measured = partial(trainer.measured_from, Path(config.model))
    found = measured(Split.TEST, config.test_tasks, config.test_samples)
    if trainer.processes.is_main:
        write_json(file, asdict(found))
    return found


def _probe(trainer: RLTrainer, folder: Path) -> RepeatProbe | None:
    """Ask, before training, whether the reward pays for idling; a run that goes on has it on disk."""
    config, file = trainer.config, folder / "repeat_probe.json"
    if trainer.scorer is None or not config.repeat_probe:
        return None
    if file.exists() and trainer.state.iteration:
        return RepeatProbe(**known) if (known := read_json(file)) else None
    trajectories, _ = split_failed(trainer.collect(0, at_most=_TRIES_OF_A_PROBE * config.repeat_probe))
    try:
        with trainer.learner.acting() as whole:
            found = probe_repeats(
                trajectories, trainer.acting_policy(whole), trainer.setting_at(0), trainer.scorer,
                config.credit_setting(), episodes=config.repeat_probe, seed=config.seed,
            )  # fmt: skip
    except DataError as error:  # of an environment that does not repeat itself
        log.warning("the probe with repeated actions is left out: %s", error)
        found = None
    if trainer.processes.is_main:
        write_json(file, None if found is None else asdict(found))
    if found is not None and found.is_hackable:
        log.warning(
            "reward %s pays %.3f for an action repeated without effect (a step: %.3f): it may be farmed",
            config.reward, found.paid_per_repeat, found.paid_per_step,
        )  # fmt: skip
    return found


def _finish(
    trainer: RLTrainer,
    tokenizer: PreTrainedTokenizerBase,
    before: TaskResults | None,
    probe: RepeatProbe | None,
) -> dict[str, Any]:
    """Choose the policy that is kept, save it, measure it on test tasks."""
    config, learner, state, folder = trainer.config, trainer.learner, trainer.state, trainer.folder
    chosen = state.iteration
    if config.select == "best" and state.best_iteration >= 0:
        chosen = state.best_iteration
        if learner.processes.is_main:
            shutil.copytree(trainer.best_folder(), folder, dirs_exist_ok=True)
        learner.processes.wait()
    else:
        learner.save_policy(folder, tokenizer)
    summary: dict[str, Any] = {
        "reward": config.reward,
        "advantage": config.advantage,
        "outcome": config.outcome,
        "iterations": state.iteration,
        "selected_iteration": chosen,
        "env_steps": state.env_steps,
        "tokens": state.tokens,
        "seconds": dict(state.seconds),
        "alarm": list(state.alarms.values()),
    }
    if probe is not None:
        summary["repeat_probe"] = {**asdict(probe), "is_hackable": probe.is_hackable}
    if before is not None:
        after = trainer.measured_from(folder, Split.TEST, config.test_tasks, config.test_samples)
        summary |= {
            "before": before.as_json(),
            "after": after.as_json(),
            "difference": paired_differences(before, after),
        }
        if is_first():
            write_json(folder / "after.json", asdict(after))
            _say(summary)
    return summary


def _say(summary: Mapping[str, Any]) -> None:
    told = {"sample": "sample success", "greedy": "greedy success"}
    if any(summary[when][f"{how}_score"] != summary[when][how] for when in _COMPARED for how in told):
        told |= {"sample_score": "sample score", "greedy_score": "greedy score"}
    for name, what in told.items():
        b, a, d = (summary[when][name] for when in _COMPARED)
        log.info(
            "%s on %d test tasks: %.1f %% -> %.1f %%, %+.1f points, 95 %% [%+.1f, %+.1f]",
            what, summary["after"]["tasks"], 100 * b["mean"], 100 * a["mean"],
            100 * d["mean"], 100 * d["low"], 100 * d["high"],
        )  # fmt: skip
