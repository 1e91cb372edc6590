"""The loop of agent RL: collect → score → step rewards → advantages → PPO → log → save.

One iteration is a function of the weights, the optimiser and its number: tasks, seeds, learning rate and
round limit follow from the number. So a killed run resumes exactly from its last checkpoint.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from rlprm.data.message_counts import thought_shares
from rlprm.errors import EpisodesLostError
from rlprm.models.manifest import Manifest
from rlprm.rl import rewards
from rlprm.rl.batch import Batch, PRMValues, prm_values, split_failed
from rlprm.rl.config import RLConfig
from rlprm.rl.credit import Credit, assign_credit
from rlprm.rl.engine import Engine
from rlprm.rl.keeping.checkpoints import Journal, save_checkpoint
from rlprm.rl.keeping.episodes import KeptEpisodes, meta_of_episodes
from rlprm.rl.keeping.rollback import drop_others, load_best, save_best
from rlprm.rl.monitor.alarm import alarms
from rlprm.rl.monitor.costs import highest, peak_memory, tokens_per_second
from rlprm.rl.monitor.diagnostics import TABLE_COLUMNS, iteration_metrics, table_rows
from rlprm.rl.monitor.measure import TaskResults, measure_on
from rlprm.rl.monitor.mismatch import refuse_mismatch, sampler_mismatch
from rlprm.rl.monitor.undeclared import undeclared_alarm
from rlprm.rl.monitor.watch import Sign, read_watched, watched
from rlprm.rl.old_logprobs import read_old_logprobs, rows_to_read
from rlprm.rl.refresh import FreshTrajectories, Refresh
from rlprm.rl.samplers.ahead import Ahead
from rlprm.rl.samplers.base import CollectionStopped, Sampler
from rlprm.rl.schedule import learning_rate_factor, round_limit_at, round_limit_since
from rlprm.rl.selection.learned import learned_rows, selection_metrics
from rlprm.rl.selection.signal import MOST_ROUNDS, tasks_with_signal
from rlprm.rl.selection.task_source import TaskSource
from rlprm.rl.state import (
    Changes,
    IterationFacts,
    RunState,
    next_state,
    with_dev_outcome,
    with_rollback,
)
from rlprm.rl.update import update
from rlprm.runtime.processes import collective
from rlprm.runtime.record import Stopwatch
from rlprm.runtime.supervision.memory import within_memory
from rlprm.runtime.supervision.signals import Signals
from rlprm.runtime.tracking import Tracker
from rlprm.scorers.base import Scorer
from rlprm.scorers.distributed import DistributedScorer
from rlprm.types import EpisodeSetting, Split, Task, Trajectory

__all__ = ["RLTrainer"]

log = logging.getLogger(__name__)
_TABLE_EPISODES = 8


class RLTrainer:
    """Trains a policy with step rewards.

    Args:
        config: of the run.
        engine: trains the model.
        sampler: runs all episodes.
        tokenizer: saved with the policy.
        load_scorer: makes a scorer from a PRM's folder.
        refresh: trains the PRM again on fresh episodes.
        state: where to begin.
        settings: stored with checkpoints, so that no other run resumes from them.
        changed: settings that have changed since the checkpoint; the journal keeps them.
        tracker: for metrics; used by the first process only.
        ahead: runs the next iteration's episodes meanwhile; None if each iteration waits for its own.
        signals: what has asked the run to end.
    """

    def __init__(
        self,
        config: RLConfig,
        engine: Engine,
        sampler: Sampler,
        tokenizer: PreTrainedTokenizerBase,
        *,
        load_scorer: Callable[[str], Scorer],
        refresh: Refresh,
        state: RunState,
        settings: dict[str, Any],
        changed: Changes,
        tracker: Tracker,
        ahead: Ahead | None = None,
        signals: Signals | None = None,
    ) -> None:
        self.config, self.engine, self.sampler, self.tokenizer = config, engine, sampler, tokenizer
        self.load_scorer, self.state, self.settings, self.tracker = load_scorer, state, settings, tracker
        self.folder = Path(config.output_dir)
        self.changed, self.ahead = changed, ahead
        self.processes = engine.processes
        self.journal = Journal(self.folder, state.iteration, writes=self.processes.is_main)
        self.scorer = self._load_scorer(state.prm) if state.prm else None
        self.kept = KeptEpisodes(
            self.folder,
            config.keep_rollouts,
            meta_of_episodes(config, config.output_dir),
            writes=self.processes.is_main,
        )
        self.fresh = FreshTrajectories(config, self.processes, refresh)
        self.tasks = TaskSource(config, self.journal.rows)
        self.prm_env_steps = _prm_env_steps(config)
        """Steps of the episodes that the first PRM was trained on; None if they are not known."""
        self.newest: list[Trajectory] = []
        """Episodes of the last iteration that was run, without the failed ones."""
        self._before: dict[str, float] = {}
        """Dev results before RL, until the journal has them."""
        self._watch = Stopwatch()
        self._signals = signals or Signals()
        self._saved_at = state.iteration
        """Iterations behind the newest checkpoint; 0 without one."""
        sampler.sync(engine, version=state.iteration)

    @collective
    def train(self) -> None:
        """Run the remaining iterations.

        Raises:
            TrainingError: if a number is not finite, or the sampler acts with another policy than the one
            that is trained.
            EpisodesLostError: if too many episodes of an iteration failed; after a checkpoint is written.
            RunInterruptedError: after a signal, where the run can be resumed from; see :meth:`_end_if_asked`.
        """
        with self._signals.deferred():
            self._train()

    def _train(self) -> None:
        config, done = self.config, self.state.iteration
        bar = tqdm(
            total=config.iterations, initial=done, desc="train-rl", unit="iteration",
            disable=not self.processes.is_main,
        )  # fmt: skip
        with bar:
            if self.state.best_iteration < 0 and config.eval_every and config.select == "best":
                # The policy before RL is a candidate: a run that only hurts keeps it.
                found = self._measure_dev()
                self._before = found.means()
                error = found.standard_error(config.outcome)
                self._advance(with_dev_outcome(self.state, self._before[config.outcome], error))
            for iteration in range(done, config.iterations):
                row, is_last = self._iterate(iteration)
                bar.update(1)
                reached = f"{row[f'rollout/{config.outcome}']:.2f}"
                bar.set_postfix({config.outcome: reached, "kl": f"{row['ppo/approx_kl']:.3f}"})
                if is_last and iteration + 1 < config.iterations:
                    break  # without a checkpoint: a run that resumed from it would train on
                if config.save_every and (iteration + 1) % config.save_every == 0:
                    self._save()
                self._end_if_asked()

    def _end_if_asked(self) -> None:
        """End the run if a process of the launch has received a signal.

        Called where weights, optimiser and state are those at the end of an iteration: before the next one,
        after its rollouts and before its update.

        Raises:
            RunInterruptedError: in all processes, after a checkpoint is written.
        """
        number = max(self.processes.gather_all(self._signals.received()))
        if number:
            if self.config.save_on_preemption:
                self._save_if_new()
            raise self._signals.interruption(
                number, f"{self._saved_at} iterations are in the last checkpoint"
            )

    def _save_if_new(self) -> None:
        """Save a checkpoint unless the newest one has the same iterations already."""
        if self._saved_at < self.state.iteration:
            self._save()

    def _thought_metrics(self, trajectories: Sequence[Trajectory]) -> dict[str, float]:
        renderer = self.sampler.policy.renderer
        if not renderer.marks_thoughts:
            return {}
        found = thought_shares(trajectories, renderer.thought_tokens)
        return {f"rollout/{name}": value for name, value in found.items()}

    def _iterate(self, iteration: int) -> tuple[dict[str, Any], bool]:
        """Run one iteration; returns its metrics, and whether it is the last."""
        config = self.config
        with self._watch.time("rollout"):
            try:
                trajectories, staleness = self._episodes(iteration)
            except CollectionStopped:
                self._end_if_asked()
                raise
        first = self.tasks.first_place(iteration, drawn_tasks=self.state.drawn_tasks)
        places = range(first, first + len(trajectories) // config.rollouts_per_task)
        usable, failed = split_failed(trajectories)
        self.newest = usable
        self.kept.add(iteration, trajectories)
        if not usable or len(usable) < config.min_usable_share * len(trajectories):
            self._save_if_new()
            raise EpisodesLostError(
                f"{len(failed)} of {len(trajectories)} episodes of iteration {iteration} failed (allowed by "
                f"min_usable_share: {config.min_usable_share:g} usable), the first one: {failed[0].error}; "
                "mend the cause and run the same command again to go on"
            )
        with self._watch.time("score"):
            scores = self.scorer.score(usable) if self.scorer else []
        all_values = prm_values(scores) if scores else None
        learned = learned_rows(usable, scores, config)
        values = prm_values([scores[row] for row in learned]) if scores else None
        batch = Batch.from_trajectories(
            [usable[row] for row in learned], outcome=config.outcome,
            mask_cut_at=config.max_new_tokens if config.mask_cut_messages else None,
        )  # fmt: skip
        with self._watch.time("evaluate"):
            chosen = rows_to_read(
                config, self.engine, batch, sampler_is_exact=self.sampler.is_exact, iteration=iteration
            )
            old, _ = within_memory(
                lambda tokens: read_old_logprobs(
                    self.engine, batch,
                    token_budget=tokens, with_reference=config.kl_coef > 0, policy_rows=chosen,
                ),
                config.micro_batch_tokens,
                setting="micro_batch_tokens", again=self.processes.count == 1,
            )  # fmt: skip
        if not staleness:  # older weights differ by what was learned; sync compares those that wrote
            refuse_mismatch(
                sampler_mismatch(batch, old), limit=config.max_sampler_mismatch,
                half=self.engine.in_half or self.sampler.in_half,
                temperature=config.temperature, iteration=iteration,
            )  # fmt: skip
        credit = assign_credit(batch, values, old, config.credit_setting())
        if self.ahead is None:  # a checkpoint would lack the episodes that servers are running
            self._end_if_asked()
        with self._watch.time("update"):
            stats = update(
                self.engine, batch, credit, old, config,
                seed=int(np.random.SeedSequence((config.seed, iteration)).generate_state(1)[0]),
                factor=self._rate_factor(iteration),
                critic_only=iteration < config.critic_only_iterations,
            )  # fmt: skip
        if self.ahead is not None:
            with self._watch.time("rollout"):
                self.ahead.wait()
        self.sampler.sync(self.engine, version=iteration + 1)
        facts = IterationFacts(
            env_steps=sum(len(t.steps) for t in trajectories),
            tokens=sum(t.action_tokens for t in trajectories),
            drawn_tasks=len(places),
        )
        so_far = next_state(self.state, facts)
        row: dict[str, Any] = {
            **iteration_metrics(
                trajectories, batch, values, credit, old, stats, max_new_tokens=config.max_new_tokens
            ),
            **self._thought_metrics(usable),
            **selection_metrics(usable, learned, all_values, config),
            "rollout/staleness": staleness,
            "rollout/env_steps": so_far.env_steps,
            "rollout/sampled_tokens": so_far.tokens,
            "ppo/learning_rate": config.step_size * self._rate_factor(iteration),
        }
        if self.prm_env_steps is not None:
            row["rollout/env_steps_total"] = so_far.env_steps + self.prm_env_steps
        signs = self._watch_signs(usable, all_values, credit)
        facts = replace(facts, signs={**self._undeclared_sign(row), **self._alarms(iteration, signs, places)})
        is_last = (
            iteration + 1 == config.iterations
            or (bool(facts.signs) and self._ends_on_alarm())
            or 0 < config.max_env_steps <= so_far.env_steps
        )
        if config.eval_every and (is_last or (iteration + 1) % config.eval_every == 0):
            found = self._measure_dev()
            dev = found.means()
            row |= {f"eval/{name}": mean for name, mean in dev.items()}
            error = found.standard_error(config.outcome)
            facts = replace(facts, dev_outcome=dev[config.outcome], dev_error=error)
        rolls_back = bool(facts.signs) and config.on_alarm == "rollback" and not is_last
        is_due = self.fresh.add(iteration, usable) or (rolls_back and config.refresh_every > 0)
        if is_due and not is_last:  # the last PRM would score no episode
            with self._watch.time("refresh"):
                facts = replace(facts, prm=self._refresh(iteration))
        seconds = {f"time/{phase}": spent for phase, spent in self._watch.lap().items()}
        read = sum(len(x.token_ids) for x in usable)
        tokens = {
            "rollout": facts.tokens, "score": read if self.scorer else 0,
            "update": sum(batch.widths_B) * config.ppo_epochs,
        }  # fmt: skip
        row |= {**seconds, **tokens_per_second(seconds, tokens)}
        row |= highest(self.processes.gather_all(peak_memory()))
        row |= {f"before/{name}": mean for name, mean in self._before.items()}
        self._before = {}
        self._advance(next_state(self.state, replace(facts, seconds=seconds)))
        noted: dict[str, Any] = {"watch": {name: asdict(sign) for name, sign in signs.items()}}
        noted |= self.tasks.noted(usable, places)
        if self.changed:
            noted["changed"] = self.changed
            self.changed = {}
        if rolls_back and self._roll_back():
            noted["rollback"] = self.state.best_iteration
        self.journal.write({"iteration": iteration, **row, **noted})
        if self.processes.is_main:
            self.tracker.log(row, iteration)
            if config.table_every and iteration % config.table_every == 0:
                rows = table_rows(usable[:_TABLE_EPISODES], scores)
                self.tracker.log_table("rollout/trajectories", TABLE_COLUMNS, rows, iteration)
        return row, is_last

    @collective
    def _refresh(self, iteration: int) -> str:
        """Train the PRM again, with the memory of the accelerator to itself; returns its new folder."""
        self.scorer = None
        with self.engine.offloaded(), self.sampler.offloaded():
            prm = self.fresh.train(iteration, self.state.prm)
        self.scorer = self._load_scorer(prm)
        return prm

    def _ends_on_alarm(self) -> bool:
        on_alarm, spent = self.config.on_alarm, self.state.rollbacks >= self.config.max_rollbacks
        return on_alarm == "stop" or (on_alarm == "rollback" and spent)

    def _roll_back(self) -> bool:
        """Take up the best policy again, with a lower rate; returns whether its state is there."""
        best = self.state.best_iteration
        if not load_best(self.engine, self.folder, best):
            log.warning("no rollback: the run has kept no whole state of its best policy, from %d", best)
            return False
        self._advance(with_rollback(self.state))
        self.sampler.sync(self.engine, version=self.state.iteration)
        log.warning("rollback %d: the policy is that after %d iterations", self.state.rollbacks, best)
        return True

    def _advance(self, state: RunState) -> None:
        """Make a state the present one; a new best policy is saved, a new alarm is logged."""
        before, self.state = self.state, state
        if state.best_iteration != before.best_iteration:
            self.engine.save_policy(self.best_folder(), self.tokenizer)
            if self.config.on_alarm == "rollback":
                save_best(self.engine, self.folder, state.best_iteration)
        if self.processes.is_main:
            for sign, text in state.alarms.items():
                if sign not in before.alarms:
                    log.warning("reward hacking alarm, %s", text)

    # --- collecting -------------------------------------------------------------------------------------

    def setting_at(self, iteration: int) -> EpisodeSetting:
        """Return the setting of an iteration's episodes."""
        limit = round_limit_at(iteration, self.config.round_limits, self.config.round_limit)
        return replace(self.config.episode_setting(), round_limit=limit)

    def _episodes(self, iteration: int) -> tuple[list[Trajectory], float]:
        """Return the episodes of an iteration, and how many versions older their weights are."""
        ready = None if self.ahead is None else self.ahead.take()
        stop = None if self.ahead else self._signals.received
        trajectories = self.collect(iteration, stop=stop) if ready is None else ready
        if self.config.dynamic_sampling:
            trajectories = self._with_more_tasks(trajectories, self.setting_at(iteration), stop=stop)
        if self.ahead is not None and iteration + 1 < self.config.iterations:
            self.ahead.begin(self.jobs_of(iteration + 1), self.setting_at(iteration + 1))
        return trajectories, float(ready is not None)

    @collective
    def _with_more_tasks(
        self,
        trajectories: list[Trajectory],
        setting: EpisodeSetting,
        *,
        stop: Callable[[], object] | None = None,
    ) -> list[Trajectory]:
        """Return the episodes, and those of further tasks in place of tasks without a signal."""
        config, found = self.config, list(trajectories)
        for _ in range(MOST_ROUNDS):
            usable = split_failed(found)[0]
            kept = len(tasks_with_signal(usable, outcome=config.outcome, gamma=config.gamma))
            missing = config.tasks_per_iteration - kept
            if missing <= 0:
                break
            first = self.state.drawn_tasks + len(found) // config.rollouts_per_task
            found += self.sampler.collect(
                self.tasks.jobs_at(range(first, first + missing)), setting, stop=stop
            )
        return found

    @collective
    def collect(
        self, iteration: int, *, at_most: int | None = None, stop: Callable[[], object] | None = None
    ) -> list[Trajectory]:
        """Run the episodes of an iteration, or the first of them; every process gets all.

        Raises:
            CollectionStopped: see :meth:`rlprm.rl.samplers.base.Sampler.collect`.
        """
        return self.sampler.collect(self.jobs_of(iteration)[:at_most], self.setting_at(iteration), stop=stop)

    def jobs_of(self, iteration: int) -> list[tuple[Task, int]]:
        """Return the tasks of an iteration, each with the numbers of its samples."""
        first = self.tasks.first_place(iteration, drawn_tasks=self.state.drawn_tasks)
        return self.tasks.jobs_at(range(first, first + self.config.tasks_per_iteration))

    def _load_scorer(self, folder: str) -> Scorer:
        return DistributedScorer(self.load_scorer(folder), self.processes)

    # --- measuring --------------------------------------------------------------------------------------

    def _measure_dev(self) -> TaskResults:
        config = self.config
        with self._watch.time("eval"):
            return measure_on(self.sampler, config, Split.DEV, config.eval_tasks, config.eval_samples)

    def _rate_factor(self, iteration: int) -> float:
        lowered = self.config.rollback_factor**self.state.rollbacks
        return lowered * learning_rate_factor(
            iteration,
            self.config.iterations,
            schedule=self.config.lr_schedule,
            warmup=self.config.warmup_iterations,
            critic_warmup=self.config.critic_only_iterations,
            minimum=self.config.min_learning_rate,
            since=self.state.rate_from,
            start=self.state.rate_factor,
        )

    def _watch_signs(
        self, trajectories: Sequence[Trajectory], values: PRMValues | None, credit: Credit
    ) -> dict[str, Sign]:
        """Return what the alarm compares of an iteration."""
        config = self.config
        if values is None:
            return watched(trajectories, outcome=config.outcome)
        ends = [float(row[len(t.steps)]) for row, t in zip(values.values_BT1, trajectories, strict=True)]
        # The sum of potential-based rewards over an episode is settled before the episode begins.
        is_potential = rewards.critic_factor(config.reward, config.reward_kwargs) is not None
        paid: list[float] | None = ends if is_potential else credit.rewards.prm.sum(1).tolist()
        if paid is not None and len(paid) < len(ends):  # known of the episodes that were learned from alone
            paid = None
        return watched(trajectories, outcome=config.outcome, final_values=ends, paid=paid)

    def _alarms(self, iteration: int, signs: Mapping[str, Sign], places: range) -> dict[str, str]:
        """Return the signs of reward hacking after an iteration that is not in the journal yet."""
        config = self.config
        # Another PRM or round limit changes signs and outcome without any hacking.
        since = max(self.state.watched_from, round_limit_since(iteration, config.round_limits))
        since = max(since, self.tasks.same_kind_since(iteration, places))
        before = [read_watched(row) for row in self.journal.rows if row["iteration"] >= since]
        return alarms([row for row in (*before, signs) if row], outcome=config.outcome)

    def _undeclared_sign(self, row: Mapping[str, Any]) -> dict[str, str]:
        # Rows of a run that an earlier version began, and of one with end: on_success, lack the metric.
        since = self.state.rolled_back_at
        rows = [r for r in self.journal.rows if r["iteration"] >= since]
        counted = [r for r in (*rows, row) if "rollout/declared_success" in r]
        return undeclared_alarm(
            [r["rollout/success"] for r in counted],
            [r["rollout/declared_success"] for r in counted],
            episodes=self.config.tasks_per_iteration * self.config.rollouts_per_task,
        )

    # --- saving -----------------------------------------------------------------------------------------

    def best_folder(self) -> Path:
        """Folder of the best policy so far, named after its iteration: after a kill a later one is void."""
        return self.folder / "best" / f"iteration-{self.state.best_iteration:06d}"

    def _save(self) -> None:
        with self._watch.time("save"):
            save_checkpoint(
                self.engine, self.folder, self.state, self.settings,
                keep=self.config.keep_checkpoints, ahead=self.ahead.ready if self.ahead else None,
            )  # fmt: skip
            if self.processes.is_main:  # no run resumes from an earlier one
                for older in set(self.best_folder().parent.glob("*")) - {self.best_folder()}:
                    shutil.rmtree(older)
                drop_others(self.folder, self.state.best_iteration)
            self._saved_at = self.state.iteration


def _prm_env_steps(config: RLConfig) -> int | None:
    """Return the environment steps that the run owes to its PRM; None if the PRM does not say."""
    if not config.prm or not (config.uses_prm or config.trains_critic):
        return 0
    return Manifest.load(config.prm).env_steps
