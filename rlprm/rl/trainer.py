"""The loop of agent RL: collect → score → step rewards → advantages → PPO → log → save.

One iteration is a function of the weights, the optimiser and its number: tasks, seeds, step size and round
limit follow from it. So a run that was killed goes on exactly where its last checkpoint is.
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

from rlprm import envs
from rlprm.data.rendering import ChatRenderer
from rlprm.errors import TrainingError
from rlprm.models import zero
from rlprm.policies.hf import HFPolicy
from rlprm.rl import rewards
from rlprm.rl.actor_critic import ActorCritic
from rlprm.rl.batch import Batch, PRMValues, prm_values, split_failed
from rlprm.rl.checkpoints import Journal, RunState, save_checkpoint
from rlprm.rl.config import RLConfig
from rlprm.rl.credit import Credit, OldLogprobs, assign_credit
from rlprm.rl.learner import Learner, UpdateStats
from rlprm.rl.monitor.alarm import alarms
from rlprm.rl.monitor.diagnostics import credit_metrics, prm_metrics, rollout_metrics
from rlprm.rl.monitor.measure import TaskResults, measure_policy, run_distributed
from rlprm.rl.refresh import FreshTrajectories
from rlprm.rl.schedule import learning_rate_factor, round_limit_at, scheduled_tasks
from rlprm.runtime.record import Stopwatch
from rlprm.runtime.tracking import Tracker
from rlprm.scorers.base import Scorer
from rlprm.scorers.distributed import DistributedScorer
from rlprm.types import EpisodeSetting, Split, StepScores, Task, Trajectory

__all__ = ["RLTrainer"]

log = logging.getLogger(__name__)
_TABLE_ROWS = 8


class RLTrainer:
    """Trains a policy with step rewards.

    Args:
        config: of the run.
        learner: holds the model.
        renderer: of the policy's tokenizer.
        load_scorer: makes a scorer from a PRM's folder.
        state: where to begin.
        settings: what is stored with checkpoints, so that no other run goes on from them.
        tracker: for metrics; used by the first process only.
    """

    def __init__(
        self,
        config: RLConfig,
        learner: Learner,
        renderer: ChatRenderer,
        *,
        load_scorer: Callable[[str], Scorer],
        state: RunState,
        settings: dict[str, Any],
        tracker: Tracker,
    ) -> None:
        self.config, self.learner, self.renderer, self.state = config, learner, renderer, state
        self.load_scorer, self.settings, self.tracker = load_scorer, settings, tracker
        self.folder = Path(config.output_dir)
        self.processes = learner.processes
        self.journal = Journal(self.folder, state.iteration, writes=self.processes.is_main)
        self.scorer = self._load_scorer(state.prm) if state.prm else None
        self.fresh = FreshTrajectories(config, self.processes)
        self._watch = Stopwatch()
        self._told: dict[str, float] = {}

    def train(self) -> None:
        """Run the iterations that are left.

        Raises:
            TrainingError: if something is not finite, or every episode of an iteration failed.
        """
        config, done = self.config, self.state.iteration
        bar = tqdm(
            total=config.iterations, initial=done, desc="train-rl", unit="iteration",
            disable=not self.processes.is_main,
        )  # fmt: skip
        with bar:
            if done == 0 and config.eval_every and config.select == "best":
                self._evaluate()  # a run that only hurts keeps the policy it began with
            for iteration in range(done, config.iterations):
                row, is_last = self._iterate(iteration)
                bar.update(1)
                reached = f"{row[f'rollout/{config.outcome}']:.2f}"
                bar.set_postfix({config.outcome: reached, "kl": f"{row['ppo/approx_kl']:.3f}"})
                if is_last and iteration + 1 < config.iterations:
                    break  # unsaved: a run that went on from here would train on
                if config.save_every and (iteration + 1) % config.save_every == 0:
                    self._save()

    def _iterate(self, iteration: int) -> tuple[dict[str, Any], bool]:
        """Run an iteration; returns its metrics, and whether it is the last."""
        config, state = self.config, self.state
        with self._watch.time("rollout"):
            trajectories = self.collect(iteration)
        usable, failed = split_failed(trajectories)
        if not usable:
            raise TrainingError(
                f"all {len(failed)} episodes of iteration {iteration} failed: {failed[0].error}"
            )
        batch = Batch.from_trajectories(usable, outcome=config.outcome)
        with self._watch.time("score"):
            scores = self.scorer.score(usable) if self.scorer else []
        reads = prm_values(scores) if scores else None
        with self._watch.time("evaluate"):
            evaluated = self.learner.evaluate(batch, with_reference=config.kl_coef > 0)
        credit = assign_credit(batch, reads, evaluated, config.credit_setting())
        with self._watch.time("update"):
            stats = self.learner.update(
                batch, credit, evaluated,
                seed=int(np.random.SeedSequence((config.seed, iteration)).generate_state(1)[0]),
                factor=self._rate_factor(iteration),
                critic_only=config.trains_critic and iteration < config.critic_warmup_iterations,
            )  # fmt: skip
        state.iteration = iteration + 1
        state.env_steps += sum(len(t.steps) for t in trajectories)
        state.tokens += sum(t.action_tokens for t in trajectories)
        row = self._metrics(trajectories, batch, reads, credit, evaluated, stats, iteration)
        is_last = self._is_last(iteration, row)
        if config.eval_every and (is_last or (iteration + 1) % config.eval_every == 0):
            row |= self._evaluate()
        if self.fresh.add(iteration, usable) and not is_last:  # nothing would be scored by it
            with self._watch.time("refresh"):
                state.prm = self.fresh.train(iteration, state.prm)
                self.scorer = self._load_scorer(state.prm)
        row |= self._time_spent()
        self.journal.write({"iteration": iteration, **row})
        if self.processes.is_main:
            self.tracker.log(row, iteration)
            if config.table_every and iteration % config.table_every == 0:
                self._log_table(usable, scores, iteration)
        return row, is_last

    def _is_last(self, iteration: int, row: Mapping[str, Any]) -> bool:
        rings = self._rings(iteration, row)
        return (
            iteration + 1 == self.config.iterations
            or (rings and self.config.stop_on_alarm)
            or 0 < self.config.max_env_steps <= self.state.env_steps
        )

    # --- collecting -------------------------------------------------------------------------------------

    def acting_policy(self, whole: ActorCritic) -> HFPolicy:
        """Return the policy as it is now, to act."""
        config = self.config
        return HFPolicy(
            whole.policy,
            self.renderer,
            revision=f"{Path(config.output_dir).name}-{self.state.iteration}",
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
            context_length=config.context_length,
            reuse_cache=config.reuse_cache,
        )

    def setting_at(self, iteration: int) -> EpisodeSetting:
        """Return how episodes of an iteration are run."""
        limit = round_limit_at(iteration, self.config.round_limits, self.config.round_limit)
        return replace(self.config.episode_setting(), round_limit=limit)

    def collect(self, iteration: int, *, at_most: int | None = None) -> list[Trajectory]:
        """Run the episodes of an iteration, or the first of them; every process gets all."""
        config = self.config
        ranges = scheduled_tasks(iteration, config.tasks_per_iteration, config.num_tasks)
        jobs = [
            # A task that comes again gets other random numbers: its samples are numbered on.
            (task, before * config.samples_per_task + sample)
            for first, count, before in ranges
            for task in envs.tasks(
                config.environment, Split.TRAIN, config.first_task + first, count, config.env_kwargs
            )
            for sample in range(config.samples_per_task)
        ]
        with self.learner.acting() as whole:
            return run_distributed(
                jobs[:at_most],
                self.acting_policy(whole),
                self.setting_at(iteration),
                wave_size=config.wave_size,
                seed=config.seed,
                processes=self.processes,
            )

    def _load_scorer(self, folder: str) -> Scorer:
        return DistributedScorer(self.load_scorer(folder), self.processes)

    # --- looking ----------------------------------------------------------------------------------------

    def measured(self, split: Split, count: int, samples: int) -> TaskResults:
        """Measure the policy as it is now on the first tasks of a split."""
        config = self.config
        tasks = envs.tasks(config.environment, split, 0, count, config.env_kwargs)
        with self.learner.acting() as whole:
            return self._measure(self.acting_policy(whole), tasks, samples)

    def measured_from(self, folder: Path, split: Split, count: int, samples: int) -> TaskResults:
        """Measure a policy that was saved, on the same tasks with the same random numbers."""
        tasks = envs.tasks(self.config.environment, split, 0, count, self.config.env_kwargs)
        # As precise as the policy under training computes, which was measured before.
        dtype = "bfloat16" if self.learner.accelerator.mixed_precision == "bf16" else "float32"
        with zero.loading_unsharded():
            policy = replace(self.config, model=str(folder), dtype=dtype).load_policy()
        return self._measure(policy, tasks, samples)

    def _measure(self, policy: HFPolicy, tasks: Sequence[Task], samples: int) -> TaskResults:
        return measure_policy(
            policy, tasks, self.config.episode_setting(), samples=samples,
            wave_size=self.config.wave_size, seed=self.config.seed, processes=self.processes,
        )  # fmt: skip

    def _evaluate(self) -> dict[str, float]:
        """Measure on dev tasks; the best policy so far is kept, judged by the outcome it learns from."""
        config, state = self.config, self.state
        with self._watch.time("eval"):
            found = self.measured(Split.DEV, config.eval_tasks, config.eval_samples).means()
        reached = found[config.outcome]
        # Of equals the earlier stays: training on has moved the policy, with nothing to show for it.
        if reached > state.best_success:
            state.best_success, state.best_iteration = reached, state.iteration
            self.learner.save_policy(self.best_folder(), self.renderer.tokenizer)
        return {f"eval/{name}": mean for name, mean in found.items()}

    def best_folder(self) -> Path:
        """Where the best policy so far is; its iteration is in the name, as a later one may not count yet."""
        return self.folder / "best" / f"iteration-{self.state.best_iteration:06d}"

    def _metrics(
        self,
        trajectories: Sequence[Trajectory],
        batch: Batch,
        reads: PRMValues | None,
        credit: Credit,
        evaluated: OldLogprobs,
        stats: UpdateStats,
        iteration: int,
    ) -> dict[str, Any]:
        prm = prm_metrics(batch, reads) if reads is not None else {}
        return {
            **{f"rollout/{name}": value for name, value in rollout_metrics(trajectories).items()},
            "rollout/env_steps": self.state.env_steps,
            "rollout/policy_tokens": self.state.tokens,
            **credit_metrics(batch, credit, evaluated),
            **{f"ppo/{name}": value for name, value in asdict(stats).items() if value is not None},
            "ppo/learning_rate": self.config.learning_rate * self._rate_factor(iteration),
            **{f"prm/{name}": value for name, value in prm.items()},
        }

    def _time_spent(self) -> dict[str, float]:
        """Return the seconds of each phase since the last call, and add them up."""
        seconds, told = dict(self._watch.seconds), self._told
        spent = {f"time/{phase}": round(s - told.get(phase, 0.0), 3) for phase, s in seconds.items()}
        for name, more in spent.items():
            self.state.seconds[name] = round(self.state.seconds.get(name, 0.0) + more, 3)
        self._told = seconds
        return spent

    def _rate_factor(self, iteration: int) -> float:
        return learning_rate_factor(
            iteration,
            self.config.iterations,
            schedule=self.config.lr_schedule,
            warmup=self.config.warmup_iterations,
            minimum=self.config.min_learning_rate,
        )

    def _rings(self, iteration: int, row: Mapping[str, Any]) -> bool:
        """Look for signs that the PRM is pleased instead of the task being done; each is said once.

        Args:
            iteration: the present one.
            row: its metrics, which are not in the journal yet.
        """
        if self.scorer is None:
            return False
        config = self.config
        is_potential = rewards.critic_factor(config.reward, config.reward_kwargs) is not None
        outcome = f"rollout/{config.outcome}"
        pleased = "prm/final_value" if is_potential else "reward/prm"
        found = alarms(
            *([*self.journal.column(name), row[name]] for name in ("prm/overrating", pleased, outcome)),
            window=config.alarm_window,
            gap=config.alarm_gap,
            measure="value at the end of an episode" if is_potential else "pay for an episode",
        )
        for sign, text in found.items():
            if sign not in self.state.alarms:
                self.state.alarms[sign] = f"iteration {iteration}: {text}"
                if self.processes.is_main:
                    log.warning("reward hacking alarm, %s", self.state.alarms[sign])
        return bool(found)

    def _log_table(
        self, trajectories: Sequence[Trajectory], scores: Sequence[StepScores], iteration: int
    ) -> None:
        rows = []
        for number, trajectory in enumerate(trajectories[:_TABLE_ROWS]):
            score = scores[number] if scores else None
            for t, step in enumerate(trajectory.steps):
                promise, progress = (score.values[t], score.progress[t]) if score else (None, None)
                shown = [
                    trajectory.task.id,
                    trajectory.outcome.success,
                    trajectory.outcome.score,
                    t + 1,
                    step.action,
                    promise,
                    progress,
                ]
                rows.append(shown)
        columns = ["task", "success", "score", "step", "action", "promise", "progress"]
        self.tracker.log_table("rollout/trajectories", columns, rows, iteration)

    # --- keeping ----------------------------------------------------------------------------------------

    def _save(self) -> None:
        with self._watch.time("save"):
            save_checkpoint(
                self.learner, self.folder, self.state, self.settings, keep=self.config.keep_checkpoints
            )
            if self.processes.is_main:  # no run will go on from before
                for older in set(self.best_folder().parent.glob("*")) - {self.best_folder()}:
                    shutil.rmtree(older)
