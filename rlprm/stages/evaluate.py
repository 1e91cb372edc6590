"""Stage 5: a policy and scorers → best-of-N and searches on held-out tasks → table, summary, plots.

This file only turns names and paths into objects and strings the parts
together; what is measured is in ``rlprm.evaluation``, what is searched in ``rlprm.search``.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from tqdm.auto import tqdm

from rlprm import envs
from rlprm.data.failures import report_failures
from rlprm.data.probes import ActionProbe
from rlprm.evaluation import plots
from rlprm.evaluation.baselines import baseline_comparisons, best_free_baseline, task_kind
from rlprm.evaluation.bon import (
    AggregationChoice,
    best_of_n,
    choose_aggregation,
    comparisons,
    evaluate_pool,
    gap_closed,
    headline,
    until_accepted,
)
from rlprm.evaluation.candidate_files import write_scores, write_search
from rlprm.evaluation.compute import Meter, mean_context, row_compute
from rlprm.evaluation.discrimination import evaluate_discrimination
from rlprm.evaluation.equal_cost import COSTS, at_equal_cost
from rlprm.evaluation.majority import AnswerOf, majority_of_n
from rlprm.evaluation.pool import Pool
from rlprm.evaluation.quality import foresight, running, step_quality
from rlprm.evaluation.records import MAJORITY, Measurement
from rlprm.evaluation.summary import Findings, summarize
from rlprm.evaluation.table import TABLE_WIDTH, all_tables
from rlprm.models.hub.identity import model_files
from rlprm.models.hub.options import with_loading_options
from rlprm.policies.base import LoadedPolicy
from rlprm.policies.openai.costs import recording_costs
from rlprm.rollouts.collection import collect
from rlprm.runtime.files import write_json
from rlprm.runtime.processes import Processes, is_first, start_processes
from rlprm.runtime.provenance import warn_of_policy
from rlprm.runtime.record import FAILED, is_finished, recorded
from rlprm.runtime.tracking import log_results
from rlprm.scorers.base import Scorer
from rlprm.scorers.distributed import DistributedScorer
from rlprm.scorers.with_confidence import WithConfidence
from rlprm.stages.evaluate_parts.run_searches import (
    decode_greedily,
    load_policies,
    measure_search,
    policy_size,
    run_search,
)
from rlprm.stages.evaluate_parts.scorers import RULE, Scorers, load_scorer, load_scorers
from rlprm.stages.evaluate_parts.search_settings import CHOSEN
from rlprm.stages.evaluate_parts.settings import EvaluateConfig
from rlprm.types import Split, Task

__all__ = ["load_scorer", "run"]

log = logging.getLogger(__name__)


@with_loading_options
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
    identity = {
        **config.identity(),
        "revisions": revisions,
        **model_files(**config.models()),
        **config.sources(),
    }
    if is_finished(folder, "evaluate", identity):
        log.info("%s holds the finished evaluation of these settings; reusing it", folder)
        if is_first():
            console.print((folder / "table.txt").read_text(encoding="utf-8"), markup=False, highlight=False)
        return {}
    warn_of_policy(config)
    processes = start_processes()
    used = load_scorers(config)
    if config.action_probe:
        config.require_setting_of(ActionProbe.open(config.action_probe))
    policy = config.load_policy()
    policies = load_policies(config, policy)
    with (
        recorded(folder, "evaluate", identity) as results,
        recording_costs(policy, folder, processes, results),
    ):
        meter = Meter(folder / "compute.json" if processes.is_main else None)
        shared = [DistributedScorer(scorer, processes) for scorer in used.checkpoints]
        probe = config.action_probe
        discriminations = [evaluate_discrimination(probe, scorer) for scorer in shared if probe]
        dev, pool, tasks = _scored_pools(
            config, [*shared, *used.free], used.products, policy, processes, meter
        )
        choices = [choose_aggregation(dev, name, config.chosen_at) for name in used.with_rules]
        rules = {c.scorer: c.name for c in choices} | dict.fromkeys(used.without_rules, "last")
        answer: AnswerOf | None = getattr(envs.load(config.environment), "answer", None)
        measured = evaluate_pool(pool, {name: [rule] for name, rule in rules.items()}, config.budgets)
        until = until_accepted(pool, RULE, rules[RULE], range(1, pool.n + 1)) if RULE in rules else []
        measured += [m for m in until if m.record.n in config.budgets]
        measured += majority_of_n(pool, answer, config.budgets) if answer else []
        with meter.measure("greedy"):
            measured.append(decode_greedily(config, policy, processes, tasks))
        measured += _run_searches(config, used, rules, policies, processes, tasks, revisions, meter)
        findings = _compare(config, used, dev, pool, headline(measured, rules), choices, rules, answer, until)
        findings = replace(findings, discrimination=discriminations)
        context, sizes = mean_context(pool.flat), used.sizes()
        summary = summarize(
            findings,
            seconds=meter.seconds,
            peak_memory=meter.peak_memory,
            compute={
                record.name: row_compute(
                    record,
                    meter,
                    policy=policy_size(policies.get(record.search or "", policy)),
                    scorers=sizes,
                    pool_size=pool.n,
                    context=context,
                )
                for record in findings.records
            },
        )
        if not processes.is_main:
            return summary
        write_json(folder / "summary.json", summary)
        log_results(
            config.report_to,
            folder=folder,
            config=identity,
            metrics={record.name: record.success_rate for record in findings.records},
            images=_plot(folder, config, pool, findings),
        )
        _report(console, folder, config, findings)
        results.update(success_rate=summary["policy"], gap_closed=summary["gap_closed"])
        results[FAILED] = dev.failed + max(record.failed for record in findings.records)
    return summary


def _scored_pools(
    config: EvaluateConfig,
    scored_by: Sequence[Scorer],
    products: Sequence[WithConfidence],
    policy: LoadedPolicy,
    processes: Processes,
    meter: Meter,
) -> tuple[Pool, Pool, list[Task]]:
    """Return the dev pool and the pool with all scores, which are written down, and the pool's tasks."""
    folder = Path(config.output_dir)
    tasks = _tasks(config, Split(config.split), config.first_task, config.num_tasks)
    dev_tasks = _tasks(config, Split.DEV, config.first_dev_task, config.num_dev_tasks)
    with meter.measure("dev pool", resumes=True):
        dev = _pool(config, policy, processes, dev_tasks, folder / "dev-pool", config.chosen_at)
    with meter.measure("pool", resumes=True):
        pool = _pool(config, policy, processes, tasks, folder / "pool", max(config.budgets))
    for scorer in tqdm(scored_by, desc="scoring", unit="scorer", disable=not processes.is_main):
        with meter.measure(f"dev scoring {scorer.name}"):
            dev = dev.scored(scorer)
        with meter.measure(f"scoring {scorer.name}"):
            pool = pool.scored(scorer)
    for weighing in products:
        dev, pool = dev.weighed(weighing), pool.weighed(weighing)
    if processes.is_main:
        write_scores(folder / "dev-scores", dev)
        write_scores(folder / "scores", pool)
    return dev, pool, tasks


def _run_searches(
    config: EvaluateConfig,
    used: Scorers,
    rules: Mapping[str, str],
    policies: Mapping[str, LoadedPolicy],
    processes: Processes,
    tasks: Sequence[Task],
    revisions: Mapping[str, str],
    meter: Meter,
) -> list[Measurement]:
    """Run every search with each of its scorers, and write down its candidates."""
    measured = []
    for wanted in config.all_searches():
        for name in wanted.scorers or config.scorers_of_beams():
            scorer = used.by_name[name]
            rule = rules[name] if wanted.aggregation == CHOSEN else wanted.aggregation
            with meter.measure(f"{wanted.title} {name}", resumes=True):
                results = run_search(
                    config, wanted, scorer, rule, policies[wanted.title], processes, tasks, revisions
                )
            if processes.is_main:
                folder = Path(config.output_dir) / "searches"
                write_search(folder / f"{wanted.file_name(name)}.jsonl", results)
            measured.append(measure_search(results, wanted, name, rule))
    return measured


def _compare(
    config: EvaluateConfig,
    used: Scorers,
    dev: Pool,
    pool: Pool,
    measured: Sequence[Measurement],
    choices: Sequence[AggregationChoice],
    rules: Mapping[str, str],
    answer: AnswerOf | None,
    until: Sequence[Measurement],
) -> Findings:
    """Compare the measurements with one another, with free baselines, and at equal cost."""
    main, n = config.main_scorer, config.chosen_at
    free = {name: rule for name, rule in rules.items() if name in config.baselines()}
    best_free = best_free_baseline(dev, free, n, answer)
    every_k = range(1, pool.n + 1)
    if until:
        curve = list(until)
    elif answer is not None and best_free.name == MAJORITY:
        curve = majority_of_n(pool, answer, every_k)
    else:
        curve = best_of_n(pool, best_free.name, rules[best_free.name], every_k)
    searches = [m for m in measured if m.record.is_search]
    return Findings(
        measured,
        choices=choices,
        paired=[
            *comparisons(measured, main=main, n=n),
            *baseline_comparisons(measured, main=main, n=n, best_free=best_free.name),
        ],
        quality=[step_quality(pool, scorer.name) for scorer in used.checkpoints],
        kind=task_kind(gap_closed(measured), RULE, n),
        best_free=best_free,
        foresight=[point for name in rules for point in foresight(pool, name)],
        running=[point for name in rules for point in running(pool, name)],
        equal_cost=[at_equal_cost(m, curve, cost) for m in searches for cost in COSTS],
        reference=curve,
    )


def _tasks(config: EvaluateConfig, split: Split, first: int, count: int) -> list[Task]:
    return envs.tasks(config.environment, split, first, count, config.env_kwargs)


def _pool(
    config: EvaluateConfig,
    policy: LoadedPolicy,
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


def _plot(folder: Path, config: EvaluateConfig, pool: Pool, findings: Findings) -> list[Path]:
    examples = plots.pick_examples(pool.trajectories, pool.scores_of(config.main_scorer))
    return plots.write_all(
        folder,
        findings.records,
        findings.quality,
        examples,
        config.main_scorer,
        [m.record for m in findings.reference],
    )


def _report(console: Console, folder: Path, config: EvaluateConfig, findings: Findings) -> None:
    """Print the tables, and write them to a file."""
    title = f"Success in %, {config.environment}, {config.split}"
    with (folder / "table.txt").open("w", encoding="utf-8") as file:
        for output in (console, Console(file=file, width=TABLE_WIDTH)):
            for table in all_tables(findings, title=title, width=output.width, n=config.chosen_at):
                output.print(table, highlight=False)
                output.print()
    console.print(f"summary, table and plots are in {folder}")
