"""The searches of an evaluation: run in portions of tasks, each stored, so that a killed one goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from rlprm import search
from rlprm.evaluation.compute import ModelSize, size_of
from rlprm.evaluation.records import BEAM, GREEDY, SEARCH, Measurement, measure_results
from rlprm.evaluation.search_store import SearchStore
from rlprm.policies.base import LoadedPolicy
from rlprm.policies.config import PolicyConfig
from rlprm.runtime.processes import Processes
from rlprm.runtime.provenance import warn_of_policy
from rlprm.runtime.settings import own_settings
from rlprm.scorers.base import Scorer
from rlprm.scorers.shortest import Shortest
from rlprm.scorers.with_confidence import WithConfidence
from rlprm.search.base import SearchResult
from rlprm.stages.evaluate_parts.search_settings import Search
from rlprm.stages.evaluate_parts.settings import EvaluateConfig
from rlprm.types import Task

__all__ = ["decode_greedily", "load_policies", "measure_search", "policy_size", "run_search"]


def load_policies(config: EvaluateConfig, policy: LoadedPolicy) -> dict[str, LoadedPolicy]:
    """Return the policy of every search, which may have a policy or a temperature of its own.

    Args:
        config: of the evaluation.
        policy: of the evaluation.

    Returns:
        Title of a search → its policy. Searches by one model share the model.

    Raises:
        ArtifactError: if one is missing.
        ChatTemplateError: if its chat template cannot be used.
    """
    loaded = {config.model: policy}
    found = {}
    for wanted in config.all_searches():
        model = wanted.policy or config.model
        if model not in loaded:
            of_policy = replace(config, model=model)
            warn_of_policy(of_policy)
            loaded[model] = of_policy.load_policy()
        acting = loaded[model]
        found[wanted.title] = acting.at_temperature(wanted.temperature) if wanted.temperature else acting
    return found


def policy_size(policy: LoadedPolicy) -> ModelSize | None:
    """Return the size of a policy's model; None if it is not known."""
    return None if policy.model is None else size_of(policy.model)


def decode_greedily(
    config: EvaluateConfig, policy: LoadedPolicy, processes: Processes, tasks: Sequence[Task]
) -> Measurement:
    """Decode in portions of tasks that fit into one wave."""
    greedy, setting = search.load("greedy"), config.episode_setting()
    cold, own = policy.at_temperature(0.0), processes.share(tasks)
    results: list[SearchResult] = []
    with tqdm(total=len(own), desc="greedy", unit="task", disable=not processes.is_main) as bar:
        for start in range(0, len(own), config.wave_size):
            portion = own[start : start + config.wave_size]
            results += greedy.search(portion, cold, Shortest(), setting, run_seed=config.seed)
            bar.update(len(portion))
    return measure_results(processes.gather(results), strategy=GREEDY)


def run_search(
    config: EvaluateConfig,
    wanted: Search,
    scorer: Scorer,
    rule: str | None,
    policy: LoadedPolicy,
    processes: Processes,
    tasks: Sequence[Task],
    revisions: Mapping[str, str],
) -> list[SearchResult]:
    """Search in portions of tasks whose candidates fit into one wave; portions that are there are kept.

    Args:
        config: of the evaluation.
        wanted: the search.
        scorer: that ranks the candidates.
        rule: the aggregation; None if the strategy has none.
        policy: acts; the search's own if it has one.
        processes: share the portions.
        tasks: to solve.
        revisions: of the policy and the scorers of the settings.

    Returns:
        One result for each task, on every process.
    """
    store = _store(config, processes, revisions, wanted, scorer, rule)
    portion = max(1, config.wave_size // wanted.width)
    portions = [tasks[start : start + portion] for start in range(0, len(tasks), portion)]
    own = processes.share(list(enumerate(portions)))
    settings = dict(wanted.settings) | ({} if rule is None else {"aggregation": rule})
    module, setting = wanted.module, config.episode_setting()
    results: list[list[SearchResult]] = []
    total = sum(len(chunk) for _, chunk in own)
    name = f"{wanted.title}, {scorer.name}"
    with tqdm(total=total, desc=name, unit="task", disable=not processes.is_main) as bar:
        for number, chunk in own:
            found = store.finished(number, chunk)
            if found is None:
                found = module.search(chunk, policy, scorer, setting, run_seed=config.seed, **settings)
                store.write(number, found)
            results.append(found)
            bar.update(len(chunk))
    everyone = [result for of_chunk in processes.gather(results) for result in of_chunk]
    place = {task.id: number for number, task in enumerate(tasks)}
    return sorted(everyone, key=lambda result: place[result.trajectory.task.id])


def measure_search(
    results: Sequence[SearchResult], wanted: Search, scorer: str, rule: str | None
) -> Measurement:
    """Return the row of a search with one scorer."""
    return measure_results(
        results,
        strategy=BEAM if wanted.is_beam else SEARCH,
        scorer=scorer,
        aggregation=rule,
        n=wanted.n,
        m=wanted.m,
        search=None if wanted.is_beam else wanted.name,
    )


def _store(
    config: EvaluateConfig,
    processes: Processes,
    revisions: Mapping[str, str],
    wanted: Search,
    scorer: Scorer,
    rule: str | None,
) -> SearchStore:
    """Open the folder of a search's results; what else is evaluated beside it makes no difference."""
    used = {field.name for field in fields(PolicyConfig)} | {"split", "first_task", "num_tasks"}
    meta: dict[str, Any] = {name: value for name, value in own_settings(config).items() if name in used}
    checkpoint = scorer
    if isinstance(scorer, WithConfidence):
        checkpoint, meta["confidence_per"] = scorer.scorer, scorer.per
    elif scorer.name == "policy_confidence":
        meta["confidence_per"] = config.confidence_per
    if not wanted.is_beam:
        meta |= {"strategy": wanted.strategy, "settings": dict(wanted.settings)}
    meta |= config.sources(checkpoint.name, *(() if wanted.is_beam else (wanted.name,)))
    revision = revisions.get(checkpoint.name, checkpoint.name)  # a free scorer has no weights
    if wanted.temperature is not None:
        meta["temperature"] = wanted.temperature
    acting = "policy" if wanted.policy is None else f"policy of {wanted.name}"
    meta |= {"policy": revisions[acting], "scorer": revision, "aggregation": rule}
    place = Path(config.output_dir) / ("beams" if wanted.is_beam else "searches")
    folder = place / f"{wanted.name}-{scorer.name}"
    old = folder.with_name(folder.name.replace("_x_policy", "+likelihood"))  # the product's name in 0.1
    if processes.is_main and old != folder and old.exists() and not folder.exists():
        old.rename(folder)
    processes.wait()
    return SearchStore.create(folder, meta)
