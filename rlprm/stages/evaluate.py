"""Stage 5: a policy and scorers → best-of-N and beam search on held-out tasks → table, summary, plots.

This file only turns names and paths into objects and strings the parts
together; what is measured is in ``rlprm.evaluation``, what is searched in ``rlprm.search``.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console
from tqdm.auto import tqdm

from rlprm import envs, scorers, search
from rlprm.data.failures import report_failures
from rlprm.data.probes import ActionProbe
from rlprm.evaluation import plots
from rlprm.evaluation.bon import choose_aggregation, comparisons, evaluate_pool, gap_closed, headline
from rlprm.evaluation.discrimination import evaluate_discrimination
from rlprm.evaluation.pool import Pool
from rlprm.evaluation.quality import step_quality
from rlprm.evaluation.records import BEAM, GREEDY, Comparison, Measurement, measure_results
from rlprm.evaluation.search_store import SearchStore
from rlprm.evaluation.summary import summarize
from rlprm.evaluation.table import TABLE_WIDTH, gap_table, paired_table, results_tables
from rlprm.policies.config import PolicyConfig
from rlprm.policies.hf import HFPolicy
from rlprm.rollouts.collection import collect
from rlprm.runtime.files import write_json
from rlprm.runtime.processes import Processes, is_first, start_processes
from rlprm.runtime.provenance import episode_settings, warn_of_differences, warn_of_policy
from rlprm.runtime.record import FAILED, Stopwatch, is_finished, recorded
from rlprm.runtime.settings import own_settings
from rlprm.runtime.tracking import log_results
from rlprm.scorers.base import Scorer
from rlprm.scorers.checkpoint import CheckpointScorer
from rlprm.scorers.distributed import DistributedScorer
from rlprm.scorers.policy_confidence import PolicyConfidence
from rlprm.scorers.random import Random
from rlprm.scorers.shortest import Shortest
from rlprm.scorers.with_confidence import WithConfidence
from rlprm.search.base import SearchResult
from rlprm.stages.settings import CHOSEN, EvaluateConfig
from rlprm.types import Split, Task

log = logging.getLogger(__name__)


def run(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate, print the table, write ``summary.json`` and plots; returns the summary.

    Several processes share whatever is generated, and the scoring of it; the first one prints and writes.

    Raises:
        ArtifactError: if the policy or a scorer is missing.
        MismatchError: if a scorer was trained in another setting than it is used in.
    """
    folder = Path(config.output_dir)
    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    revisions = config.revisions()
    identity = {**own_settings(config), "revisions": revisions, **config.sources()}
    if is_finished(folder, "evaluate", identity):
        log.info("%s holds the finished evaluation of these settings; reusing it", folder)
        if is_first():
            console.print((folder / "table.txt").read_text(encoding="utf-8"), markup=False, highlight=False)
        return {}
    warn_of_policy(config)
    processes = start_processes()
    checkpoints = [load_scorer(name, value, config) for name, value in config.scorers.items()]
    if config.action_probe:
        config.require_setting_of(ActionProbe.open(config.action_probe))
    policy = config.load_policy()
    with recorded(folder, "evaluate", identity) as results:
        watch = Stopwatch()
        shared = [DistributedScorer(scorer, processes) for scorer in checkpoints]
        probe = config.action_probe
        discriminations = [evaluate_discrimination(probe, scorer) for scorer in shared if probe]
        tasks = _tasks(config, Split(config.split), config.first_task, config.num_tasks)
        dev_tasks = _tasks(config, Split.DEV, config.first_dev_task, config.num_dev_tasks)
        with watch.time("dev pool"):
            dev = _pool(config, policy, processes, dev_tasks, folder / "dev-pool", config.chosen_at)
        with watch.time("pool"):
            pool = _pool(config, policy, processes, tasks, folder / "pool", max(config.budgets))
        likelihood, others = PolicyConfidence(config.confidence_per), (Shortest(), Random(seed=config.seed))
        confident = [
            WithConfidence(scorer, config.confidence_per) for scorer in checkpoints if config.with_confidence
        ]
        searched: list[Scorer] = [*checkpoints, *confident]
        with watch.time("scoring"):
            scored_by = [*shared, likelihood, *others]
            for scorer in tqdm(scored_by, desc="scoring", unit="scorer", disable=not processes.is_main):
                dev, pool = dev.scored(scorer), pool.scored(scorer)
            for weighing in confident:
                dev, pool = dev.weighed(weighing), pool.weighed(weighing)
        with_rules = [scorer.name for scorer in (*searched, likelihood)]
        choices = [choose_aggregation(dev, name, config.chosen_at) for name in with_rules]
        aggregation = {c.scorer: c.name for c in choices} | {scorer.name: "last" for scorer in others}
        measured = evaluate_pool(pool, {name: [rule] for name, rule in aggregation.items()}, config.budgets)
        with watch.time("greedy"):
            measured.append(_greedy(config, policy, processes, tasks))
        for n, m in config.beam_sizes():
            for scorer in searched:
                fixed = config.beam_aggregation
                rule = aggregation[scorer.name] if fixed == CHOSEN else fixed
                with watch.time(f"beam {n}x{m} {scorer.name}"):
                    store = _beam_store(config, processes, revisions, scorer, rule, n, m)
                    measured.append(_beam(config, policy, processes, scorer, rule, tasks, n, m, store))
        measured = headline(measured, aggregation)
        paired = comparisons(measured, main=config.main_scorer, n=config.chosen_at)
        quality = [step_quality(pool, scorer.name) for scorer in checkpoints]
        summary = summarize(
            measured, choices=choices, paired=paired, quality=quality, discrimination=discriminations,
            seconds=watch.seconds,
        )  # fmt: skip
        if not processes.is_main:
            return summary
        write_json(folder / "summary.json", summary)
        examples = plots.pick_examples(pool.trajectories, pool.scores_of(config.main_scorer))
        images = plots.write_all(folder, [m.record for m in measured], quality, examples, config.main_scorer)
        log_results(
            config.report_to,
            folder=folder,
            config=identity,
            metrics={m.record.name: m.record.success_rate for m in measured},
            images=images,
        )
        _report(console, folder, config, measured, paired)
        results.update(success_rate=summary["policy"], gap_closed=summary["gap_closed"])
        results[FAILED] = dev.failed + max(m.record.failed for m in measured)
    return summary


def load_scorer(name: str, value: str | Mapping[str, Any], config: EvaluateConfig) -> Scorer:
    """Load or build a scorer; a checkpoint's manifest must fit the setting it is to be used in.

    Raises:
        ArtifactError: if it is missing.
        MismatchError: if it was trained with another ``end``, prompt or action format.
    """
    if isinstance(value, Mapping):
        scorer = scorers.build(name, value)
    else:
        scorer = CheckpointScorer.load(name, value, dtype=config.dtype)
    if not isinstance(scorer, CheckpointScorer):
        return scorer
    scorer.manifest.require(end=config.end, prompt=config.prompt, action_format=config.action_format)
    warn_of_differences(f"the PRM {name}", episode_settings(scorer.manifest), episode_settings(config))
    return scorer


def _tasks(config: EvaluateConfig, split: Split, first: int, count: int) -> list[Task]:
    return envs.tasks(config.environment, split, first, count, config.env_kwargs)


def _pool(
    config: EvaluateConfig,
    policy: HFPolicy,
    processes: Processes,
    tasks: Sequence[Task],
    folder: Path,
    size: int,
) -> Pool:
    store = collect(
        policy,
        tasks,
        config.episode_setting(),
        folder=str(folder),
        samples_per_task=size,
        wave_size=config.wave_size,
        seed=config.seed,
        meta=config.collection_meta(policy),
        processes=processes,
    )
    trajectories = store.read()
    report_failures(folder.name, trajectories)
    return Pool.from_trajectories(trajectories)


def _greedy(
    config: EvaluateConfig, policy: HFPolicy, processes: Processes, tasks: Sequence[Task]
) -> Measurement:
    """Decode in portions of tasks that fit into one wave."""
    greedy, setting = search.load("greedy"), config.episode_setting()
    cold, own = policy.at_temperature(0.0), processes.share(tasks)
    found: list[SearchResult] = []
    with tqdm(total=len(own), desc="greedy", unit="task", disable=not processes.is_main) as bar:
        for start in range(0, len(own), config.wave_size):
            portion = own[start : start + config.wave_size]
            found += greedy.search(portion, cold, Shortest(), setting, run_seed=config.seed)
            bar.update(len(portion))
    return measure_results(processes.gather(found), strategy=GREEDY)


def _beam_store(
    config: EvaluateConfig,
    processes: Processes,
    revisions: Mapping[str, str],
    scorer: Scorer,
    rule: str,
    n: int,
    m: int,
) -> SearchStore:
    """Open the folder of a beam search's results; what else is evaluated beside it makes no difference."""
    used = {field.name for field in fields(PolicyConfig)} | {"split", "first_task", "num_tasks"}
    meta: dict[str, Any] = {name: value for name, value in own_settings(config).items() if name in used}
    checkpoint = scorer
    if isinstance(scorer, WithConfidence):
        checkpoint, meta["confidence_per"] = scorer.scorer, scorer.per
    meta |= config.sources(checkpoint.name)
    meta |= {"policy": revisions["policy"], "scorer": revisions[checkpoint.name], "aggregation": rule}
    folder = Path(config.output_dir) / "beams" / f"{n}x{m}-{scorer.name}"
    old = folder.with_name(folder.name.replace("_x_policy", "+likelihood"))  # the product's name in 0.1
    if processes.is_main and old != folder and old.exists() and not folder.exists():
        old.rename(folder)
    processes.wait()
    return SearchStore.create(folder, meta)


def _beam(
    config: EvaluateConfig,
    policy: HFPolicy,
    processes: Processes,
    scorer: Scorer,
    rule: str,
    tasks: Sequence[Task],
    n: int,
    m: int,
    store: SearchStore,
) -> Measurement:
    """Search in portions of tasks whose expansions fit into one wave; those that are there are kept."""
    beam = search.load("beam")
    portion = max(1, config.wave_size // (n * m))
    portions = [tasks[start : start + portion] for start in range(0, len(tasks), portion)]
    own = processes.share(list(enumerate(portions)))
    found: list[list[SearchResult]] = []
    name = f"beam {n}x{m}, {scorer.name}"
    total = sum(len(chunk) for _, chunk in own)
    with tqdm(total=total, desc=name, unit="task", disable=not processes.is_main) as bar:
        for number, chunk in own:
            results = store.finished(number)
            if results is None:
                setting = config.episode_setting()
                results = beam.search(
                    chunk, policy, scorer, setting, run_seed=config.seed, n=n, m=m, aggregation=rule
                )
                store.write(number, results)
            found.append(results)
            bar.update(len(chunk))
    everyone = [result for of_chunk in processes.gather(found) for result in of_chunk]
    return measure_results(everyone, strategy=BEAM, scorer=scorer.name, aggregation=rule, n=n, m=m)


def _report(
    console: Console,
    folder: Path,
    config: EvaluateConfig,
    measured: Sequence[Measurement],
    paired: Sequence[Comparison],
) -> None:
    """Print the tables, and write them to a file."""
    gaps = gap_closed(measured)
    closed = {scorer: gap for scorer in gaps if (gap := gaps[scorer].get(config.chosen_at)) is not None}
    with (folder / "table.txt").open("w", encoding="utf-8") as file:
        for output in (console, Console(file=file, width=TABLE_WIDTH)):
            tables = results_tables(
                [m.record for m in measured],
                title=f"Success in %, {config.environment}, {config.split}",
                width=output.width,
            )
            tables += [paired_table(paired)] if paired else []
            tables += [gap_table(closed, config.chosen_at)] if closed else []
            for table in tables:
                output.print(table, highlight=False)
                output.print()
    console.print(f"summary, table and plots are in {folder}")
