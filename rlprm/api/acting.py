"""Environments, policies, PRMs, episodes and search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack, cast

from rlprm import envs, search
from rlprm.api.settings import EpisodeKwargs, build_config, check_at_least_one, check_parts, episode_setting
from rlprm.components import check_kwargs
from rlprm.envs.base import EnvironmentModule
from rlprm.errors import ConfigError
from rlprm.models.manifest import Manifest
from rlprm.policies.base import LoadedPolicy, Policy
from rlprm.policies.config import PolicyConfig
from rlprm.rollouts.waves import free_policy, rollout
from rlprm.scorers.base import Scorer
from rlprm.scorers.checkpoint import CheckpointScorer
from rlprm.search import SearchResult, beam
from rlprm.search import best_of_n as sampling
from rlprm.types import EpisodeSetting, Split, Task, Trajectory

__all__ = [
    "LoadedEnvironment",
    "beam_search",
    "best_of_n",
    "load_environment",
    "load_policy",
    "load_prm",
    "run_episodes",
    "run_search",
]


@dataclass(frozen=True)
class LoadedEnvironment:
    """An environment and the settings of its task lists; made by :func:`load_environment`."""

    name: str
    """As it was given: a name, a dotted path or the path of a ``.py`` file."""
    env_kwargs: Mapping[str, Any]
    """Settings of the task lists."""

    @property
    def module(self) -> EnvironmentModule:
        """The environment's module."""
        return envs.load(self.name)

    def tasks(self, split: Split | str = Split.TRAIN, *, count: int, start: int = 0) -> list[Task]:
        """Return tasks ``start ... start + count - 1`` of a split; the same arguments give the same tasks.

        Args:
            split: ``"train"``, ``"dev"`` or ``"test"``; no task is in two of them.
            count: number of tasks.
            start: index of the first task in the split, from 0.

        Returns:
            The tasks, in the order of the split.

        Raises:
            ConfigError: for an unknown split, an unknown setting or a range that the split does not have.
        """
        return envs.tasks(self.name, _split_of(split), start, count, self.env_kwargs)


def load_environment(name: str, **env_kwargs: Any) -> LoadedEnvironment:
    """Load an environment.

    Args:
        name: a module of ``rlprm.envs`` (``"babyai"``), the dotted path of a module, or the path of a
            ``.py`` file.
        **env_kwargs: settings of the environment's task lists, such as ``levels`` of BabyAI.

    Returns:
        The environment; ``.tasks("train", count=64)`` lists its tasks.

    Raises:
        UnknownComponentError: if there is no such environment; the message lists those there are.
        ConfigError: if what the environment needs (a package, a server) is missing here, or it does not
            have one of the settings.
    """
    if (reason := envs.missing(name)) is not None:
        raise ConfigError(f"the environment {name} cannot run here: {reason}")
    environment = LoadedEnvironment(name, env_kwargs)
    environment.tasks(count=1)  # refuses unknown settings
    return environment


def load_policy(
    path: str | Path,
    *,
    temperature: float = 1.0,
    max_new_tokens: int = 32,
    max_thinking_tokens: int | None = None,
    context_length: int | None = None,
    dtype: str = "auto",
    server: str | Sequence[str] = (),
    endpoint: str = "",
    endpoint_model: str = "",
    endpoint_kwargs: Mapping[str, Any] | None = None,
) -> LoadedPolicy:
    """Load a policy from a folder, or reach one on servers or behind an endpoint.

    Args:
        path: folder of a causal language model with its tokenizer, for instance made by ``rlprm sft``.
        temperature: of the sampling distribution; 0 is greedy.
        max_new_tokens: the most tokens of one action, the closing token included.
        max_thinking_tokens: the most tokens of a thought, after which its end is forced; no limit if None.
        context_length: the most tokens of one conversation; the model's own limit if it is not given.
        dtype: of the weights: ``"auto"`` (bfloat16 on a GPU, else float32), ``"float32"``, ``"bfloat16"`` or
            ``"float16"``.
        server: address of a vLLM server that holds the model, or several; the model is loaded here without.
            A key comes from the environment variable ``VLLM_API_KEY``.
        endpoint: base address of an OpenAI-compatible chat endpoint that acts; ``path`` then names the
            tokenizer alone. A key comes from the environment variable ``OPENAI_API_KEY``.
        endpoint_model: name of the model at the endpoint.
        endpoint_kwargs: more parameters that are sent to the endpoint as they are.

    Returns:
        The policy, on the GPU if there is one.

    Raises:
        ArtifactError: if the folder does not hold a policy.
        ChatTemplateError: if the chat template cannot be cut into pieces.
        ConfigError: for an impossible value, or a server with another model.
        ServersGoneError: if no server answers.
    """
    config = build_config(
        PolicyConfig,
        "load_policy",
        model=str(path),
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        max_thinking_tokens=max_thinking_tokens,
        context_length=context_length,
        dtype=dtype,
        server=[server] if isinstance(server, str) else list(server),
        endpoint=endpoint,
        endpoint_model=endpoint_model,
        endpoint_kwargs=dict(endpoint_kwargs or {}),
    )
    return config.load_policy()


def load_prm(path: str | Path, *, name: str = "prm", dtype: str = "auto") -> CheckpointScorer:
    """Load a process reward model from a folder.

    Args:
        path: folder made by :func:`train_prm` or ``rlprm train-prm``.
        name: shown in tables and messages.
        dtype: of the weights, see :func:`load_policy`.

    Returns:
        The PRM; ``.score(trajectories)`` gives one ``StepScores`` per trajectory: ``values`` is the promise
        after each action, ``progress`` what each action changed.

    Raises:
        ArtifactError: if the folder does not hold a PRM.
    """
    return CheckpointScorer.load(name, str(path), dtype=dtype)


def run_episodes(
    policy: Policy,
    tasks: Sequence[Task],
    *,
    samples: int = 1,
    seed: int = 0,
    wave_size: int = 256,
    **setting: Unpack[EpisodeKwargs],
) -> list[Trajectory]:
    """Let a policy act in several tasks.

    Args:
        policy: acts.
        tasks: what to solve.
        samples: episodes of each task.
        seed: with a task's id and the sample index, determines an episode's random numbers.
        wave_size: most episodes that run side by side. Results do not depend on it, memory does.
        **setting: how episodes are run: ``end``, ``round_limit``, ``prompt``, ``action_format``.

    Returns:
        The trajectories: all samples of the first task, then all of the second, and so on. An episode in
        which the environment failed is a trajectory that stopped with ``StopReason.ERROR``.

    Raises:
        ConfigError: for an unknown or impossible setting.
        ContextLengthError: if a prompt does not fit into the policy's context.
    """
    check_parts(policy=policy, seed=seed)
    check_at_least_one(samples=samples, wave_size=wave_size)
    how = episode_setting(setting)
    jobs = [(task, sample) for task in tasks for sample in range(samples)]
    if free_policy(policy):  # whose episodes wait for no wave
        return rollout(jobs, policy, how, seed, in_flight=wave_size)
    waves = [jobs[start : start + wave_size] for start in range(0, len(jobs), wave_size)]
    return [trajectory for wave in waves for trajectory in rollout(wave, policy, how, seed)]


def best_of_n(
    tasks: Sequence[Task],
    policy: Policy,
    prm: Scorer,
    *,
    n: int = 8,
    seed: int = 0,
    aggregation: str = "last",
    **setting: Unpack[EpisodeKwargs],
) -> list[SearchResult]:
    """Sample n episodes of each task and keep the one that the PRM scores highest.

    Args:
        tasks: what to solve.
        policy: samples the candidates, at a temperature above 0.
        prm: scores them: a PRM or any other object with a ``score`` method.
        n: candidates of each task.
        seed: with a task's id and the number of the candidate, determines an episode's random numbers.
        aggregation: from step scores to one number: ``"last"``, ``"min"``, ``"mean"`` or ``"product"``.
        **setting: how episodes are run: ``end``, ``round_limit``, ``prompt``, ``action_format``.

    Returns:
        One ``SearchResult`` per task: the chosen ``trajectory``, its ``score``, and what the search cost.

    Raises:
        ConfigError: for an unknown or impossible setting.
        MismatchError: if the PRM was trained with another ``end``, ``prompt`` or ``action_format``.
    """
    check_parts(policy=policy, seed=seed, prm=prm)
    how = _setting_for(prm, setting)
    return sampling.search(tasks, policy, prm, how, run_seed=seed, n=n, aggregation=aggregation)


def beam_search(
    tasks: Sequence[Task],
    policy: Policy,
    prm: Scorer,
    *,
    n: int = 4,
    m: int = 4,
    seed: int = 0,
    aggregation: str = "last",
    **setting: Unpack[EpisodeKwargs],
) -> list[SearchResult]:
    """Search each task action by action: keep the n episodes of highest promise, try m actions in each.

    Args:
        tasks: what to solve.
        policy: samples the actions, at a temperature above 0.
        prm: scores unfinished episodes: a PRM or any other object with a ``score`` method.
        n: episodes kept after each round.
        m: actions sampled in each of them.
        seed: with a task's id, determines all random numbers of the task.
        aggregation: from step scores to one number; ``"last"`` is the paper's.
        **setting: how episodes are run: ``end``, ``round_limit``, ``prompt``, ``action_format``.

    Returns:
        One ``SearchResult`` per task: the chosen ``trajectory``, its ``score``, and what the search cost.

    Raises:
        ConfigError: for an unknown or impossible setting.
        MismatchError: if the PRM was trained with another ``end``, ``prompt`` or ``action_format``.
    """
    check_parts(policy=policy, seed=seed, prm=prm)
    how = _setting_for(prm, setting)
    return beam.search(tasks, policy, prm, how, run_seed=seed, n=n, m=m, aggregation=aggregation)


def run_search(
    tasks: Sequence[Task],
    policy: Policy,
    prm: Scorer,
    *,
    strategy: str,
    budget: int | None = None,
    seed: int = 0,
    **settings: Any,
) -> list[SearchResult]:
    """Search each task with any strategy of ``rlprm.search``, or with a strategy of your own.

    Args:
        tasks: what to solve.
        policy: samples the actions, at a temperature above 0 (at 0 for ``"greedy"``).
        prm: scores episodes, or unfinished episodes: a PRM or any other object with a ``score`` method.
        strategy: ``"beam"``, ``"best_of_n"``, ``"greedy"``, ``"halving"``, ``"puct"``, ``"resample"``,
            ``"sample_until_accepted"``, ``"step_best_of_k"``, the dotted path of a module, or the path of a
            ``.py`` file.
        budget: the most environment steps of one task; the strategy's own end if it is not given.
        seed: with a task's id, determines all random numbers of the task.
        **settings: of the strategy, such as ``n``, and how episodes are run: ``end``, ``round_limit``,
            ``prompt``, ``action_format``.

    Returns:
        One ``SearchResult`` per task: the chosen ``trajectory``, its ``score``, what the search cost, and
        ``nodes``, the record of every candidate.

    Raises:
        UnknownComponentError: if there is no such strategy; the message lists those there are.
        ConfigError: for an unknown or impossible setting.
        MismatchError: if the PRM was trained with another ``end``, ``prompt`` or ``action_format``.
    """
    check_parts(policy=policy, seed=seed, prm=prm)
    module = search.load(strategy)
    episodes = {name: settings.pop(name) for name in EpisodeKwargs.__annotations__ if name in settings}
    name = f"the search strategy {strategy}"
    check_kwargs(module.search, settings, name, not_settings=frozenset({"run_seed", "budget"}))
    how = _setting_for(prm, cast(EpisodeKwargs, episodes))
    return module.search(tasks, policy, prm, how, run_seed=seed, budget=budget, **settings)


def _setting_for(prm: Scorer, kwargs: EpisodeKwargs) -> EpisodeSetting:
    """Return how episodes are run, where the PRM was trained in such episodes."""
    setting = episode_setting(kwargs)
    if isinstance(manifest := getattr(prm, "manifest", None), Manifest):
        manifest.require(end=setting.end.value, prompt=setting.prompt, action_format=setting.action_format)
    return setting


def _split_of(name: Split | str) -> Split:
    if name not in set(Split):
        raise ConfigError(f"split: got {name!r}, allowed: {', '.join(Split)}")
    return Split(name)
