"""Stage 2: a policy acts in an environment; trajectories go to disk, wave by wave."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tqdm.auto import tqdm

from rlprm import envs
from rlprm.config import TaskConfig, own_settings, setting
from rlprm.data.rendering import ChatRenderer
from rlprm.data.shards import Shards
from rlprm.data.store import TrajectoryStore
from rlprm.errors import ConfigError, MismatchError
from rlprm.failures import has_failed, report_failures
from rlprm.launch import ALONE, Processes, join
from rlprm.models.loading import context_length_of, load_causal_lm, load_tokenizer, revision_of
from rlprm.policies.base import Policy
from rlprm.policies.hf import HFPolicy
from rlprm.rollout import rollout
from rlprm.stage import FAILED, is_finished, recorded
from rlprm.types import EpisodeSetting, Split, Task, Trajectory

log = logging.getLogger(__name__)


@dataclass
class PolicyConfig(TaskConfig):
    """Settings of every stage in which a policy acts."""

    model: str = setting("", "The policy: a folder (made by rlprm sft) or a hub id.")
    temperature: float = setting(1.0, "Sampling temperature; 0 is greedy.")
    max_new_tokens: int = setting(32, "Longest action, in tokens, its closing token included.")
    context_length: int | None = setting(None, "Longest conversation in tokens; the model's own if unset.")
    reuse_cache: bool = setting(True, "Keep keys and values across turns; false is the slow reference.")
    wave_size: int = setting(256, "Episodes run side by side.")
    dtype: str = setting("auto", "Weights of the policy: auto, float32, bfloat16, float16.")
    seed: int = setting(0, "Seed of all sampling.")

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises:
            ConfigError: naming the setting, what was received and what is allowed.
        """
        super().__post_init__()
        if not self.model:
            raise ConfigError("model: nothing given; set it in the recipe or with --model")
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature: got {self.temperature}, allowed: 0 or more")
        for name in ("max_new_tokens", "wave_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: got {getattr(self, name)}, allowed: 1 or more")
        if self.context_length is not None and self.context_length < 1:
            raise ConfigError(f"context_length: got {self.context_length}, allowed: 1 or more, or unset")
        if self.seed < 0:
            raise ConfigError(f"seed: got {self.seed}, allowed: 0 or more")

    def require_setting_of(self, store: Shards) -> None:
        """Refuse episodes, or states of them, of another setting than this one.

        Raises:
            MismatchError: naming the differences.
        """
        names = ("environment", "end", "round_limit", "prompt", "action_format")
        different = {n: (store.meta.get(n), getattr(self, n)) for n in names}
        details = ", ".join(f"{n}: {a!r} there, {b!r} now" for n, (a, b) in different.items() if a != b)
        if details:
            raise MismatchError(f"{store.folder} was made in another setting ({details})")

    def collection_meta(self, policy: HFPolicy) -> dict[str, object]:
        """Return what is stored with this policy's episodes beside what :func:`collect` knows itself."""
        return {
            "environment": self.environment,
            "env_kwargs": self.env_kwargs,
            # Waves of several precisions would be of several policies.
            "dtype": str(policy.model.dtype).removeprefix("torch."),
        }

    def require_positions(self) -> None:
        """Refuse conversations longer than the model has positions for.

        Raises:
            ConfigError: naming both lengths.
        """
        own = context_length_of(self.model)
        if self.context_length is not None and self.context_length > own:
            raise ConfigError(f"context_length: got {self.context_length}, allowed: up to the model's {own}")

    def load_policy(self) -> HFPolicy:
        """Load the policy.

        Raises:
            ArtifactError: if it is missing.
            ChatTemplateError: if its chat template cannot be used.
            ConfigError: see :meth:`require_positions`.
        """
        self.require_positions()
        return HFPolicy(
            load_causal_lm(self.model, dtype=self.dtype),
            ChatRenderer(load_tokenizer(self.model)),
            revision=revision_of(self.model),
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            context_length=self.context_length,
            reuse_cache=self.reuse_cache,
        )


@dataclass
class CollectConfig(PolicyConfig):
    """Settings of ``rlprm collect``."""

    split: str = setting("train", "Task list: train, dev or test.")
    first_task: int = setting(0, "First task of the split.")
    num_tasks: int = setting(256, "Number of tasks.")
    samples_per_task: int = setting(16, "Trajectories per task (the paper's N_TD).")
    output_dir: str = setting("runs/trajectories", "Where the trajectories go.")

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        super().__post_init__()
        if self.split not in set(Split):
            raise ConfigError(f"split: got {self.split!r}, allowed: {', '.join(Split)}")
        for name in ("num_tasks", "samples_per_task"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: got {getattr(self, name)}, allowed: 1 or more")


def run(config: CollectConfig) -> TrajectoryStore:
    """Collect trajectories; waves that are already there are kept.

    Several processes share the waves; the first one records the run when all are there.
    """
    identity = {**own_settings(config), "revision": revision_of(config.model)}
    if is_finished(config.output_dir, "collect", identity):
        log.info("%s holds the trajectories of these settings; reusing them", config.output_dir)
        return TrajectoryStore.open(config.output_dir)
    tasks = envs.load(config.environment).tasks(
        Split(config.split), config.first_task, config.num_tasks, **config.env_kwargs
    )
    processes = join()
    with recorded(config.output_dir, "collect", identity) as results:
        policy = config.load_policy()
        store = collect(
            policy,
            tasks,
            config.episode_setting(),
            folder=config.output_dir,
            samples_per_task=config.samples_per_task,
            wave_size=config.wave_size,
            seed=config.seed,
            meta=config.collection_meta(policy),
            processes=processes,
        )
        trajectories = store.read()
        results[FAILED] = report_failures("rollouts", trajectories)
        results.update(
            trajectories=len(trajectories),
            success_rate=sum(t.outcome.success for t in trajectories) / len(trajectories),
            env_steps=sum(len(t.steps) for t in trajectories),
            policy_tokens=sum(t.action_tokens for t in trajectories),
            stops=dict(Counter(t.stop.value for t in trajectories if t.stop)),
        )
    return store


def collect(
    policy: Policy,
    tasks: Sequence[Task],
    setting: EpisodeSetting,
    *,
    folder: str,
    samples_per_task: int,
    wave_size: int,
    seed: int,
    meta: dict[str, object],
    processes: Processes = ALONE,
) -> TrajectoryStore:
    """Run every task ``samples_per_task`` times and store the trajectories.

    Episodes run in fixed waves, each a shard on disk; an episode's random numbers
    depend on the seed, its task and its sample number. A killed collection
    therefore continues to exactly the same result, and several processes, each of
    which takes its share of the waves, come to it too. All of them return when all waves are there.
    Episodes that failed are run again.

    Raises:
        MismatchError: if the folder holds trajectories collected with other settings.
    """
    jobs = [(task, sample) for task in tasks for sample in range(samples_per_task)]
    store = TrajectoryStore.create(
        folder,
        {
            **meta,
            "end": setting.end.value,
            "round_limit": setting.round_limit,
            "prompt": setting.prompt,
            "action_format": setting.action_format,
            "policy": policy.revision,
            "temperature": policy.temperature,
            "max_new_tokens": policy.max_new_tokens,
            "context_length": policy.context_length,
            "seed": seed,
            "samples_per_task": samples_per_task,
            "wave_size": wave_size,
            "first_task": tasks[0].id,
            "num_tasks": len(tasks),
        },
    )
    waves = [jobs[start : start + wave_size] for start in range(0, len(jobs), wave_size)]
    own = processes.share(range(len(waves)))
    missing = [number for number in own if not _is_whole(store, number)]
    if len(missing) < len(own):
        log.info(
            "%s: %d of %d waves are there; collecting the rest", folder, len(own) - len(missing), len(own)
        )
    total, rest = (sum(len(waves[number]) for number in of) for of in (own, missing))
    with tqdm(total=total, initial=total - rest, desc="rollouts", disable=not processes.is_main) as bar:
        for number in missing:
            before = store.read_wave(number) if store.has(number) else []
            store.write(number, _run_wave(waves[number], before, policy, setting, seed))
            bar.update(len(waves[number]))
    processes.wait()
    return store


def _is_whole(store: TrajectoryStore, number: int) -> bool:
    """Whether a wave is there and none of its episodes failed."""
    return store.has(number) and not any(map(has_failed, store.read_wave(number)))


def _run_wave(
    jobs: Sequence[tuple[Task, int]],
    before: Sequence[Trajectory],
    policy: Policy,
    setting: EpisodeSetting,
    seed: int,
) -> list[Trajectory]:
    """Run the episodes of a wave that did not come to an end before."""
    done = {(t.task.id, t.sample): t for t in before if not has_failed(t)}
    rest = [(task, sample) for task, sample in jobs if (task.id, sample) not in done]
    fresh = iter(rollout(rest, policy, setting, seed))
    return [done[task.id, sample] if (task.id, sample) in done else next(fresh) for task, sample in jobs]
