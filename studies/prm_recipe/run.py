"""The study behind the PRM recipe: one change at a time to the paper's setting, several seeds, dev tasks.

    python -m studies.prm_recipe.run train --seeds 0 1 2    # resumable; --variants for a subset
    python -m studies.prm_recipe.run measure --seeds 0 1 2
    python -m studies.prm_recipe.report                        # -> docs/results/prm-recipe.json

Every seed has its own policy, rollouts, candidates and probe of actions. A variant is the tiny recipe of
the paper's PRM with some settings changed, and all are measured on the same dev tasks: best-of-N from one
pool, beam search, AUC, and how well actions at one state are told apart. Test tasks are not touched.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlprm import envs, search
from rlprm.evaluation.bon import best_of_n, oracle, sample_mean
from rlprm.evaluation.discrimination import evaluate_discrimination
from rlprm.evaluation.pool import Pool
from rlprm.evaluation.quality import step_quality
from rlprm.evaluation.records import Measurement
from rlprm.functional.aggregation import AGGREGATIONS
from rlprm.prm.config import PRMConfig
from rlprm.runtime.files import write_json
from rlprm.runtime.record import read_record
from rlprm.scorers.base import Scorer
from rlprm.scorers.checkpoint import CheckpointScorer
from rlprm.scorers.policy_confidence import PolicyConfidence
from rlprm.scorers.with_confidence import WithConfidence
from rlprm.stages import collect, estimate, probe_actions
from rlprm.stages import train_prm as prm
from rlprm.stages.settings import CollectConfig, EstimateConfig, ProbeActionsConfig
from rlprm.types import Split
from studies.stages import collect_config, parsed, rollouts, trained_model

log = logging.getLogger(__name__)

BASELINE = "paper"
POOL_TASKS, POOL_SIZE, BUDGETS, N = 192, 16, (2, 4, 8, 16), 16
BEAM_TASKS, BEAM, WAVE = 96, (4, 4), 128


@dataclass(frozen=True)
class Variant:
    """Settings that differ from the baseline."""

    about: str
    settings: Mapping[str, Any]
    recipe: str = "train_prm_paper"
    """Of the training; none for a baseline without a model."""
    model: str = "pretrained"
    rollouts: str = "rollouts"
    labels: str = ""
    """File of Monte-Carlo labels to learn from, of those that ``rlprm estimate`` writes."""
    weighs: str = ""
    """Variant whose values are weighed by the policy's probabilities; nothing is trained for it."""


_BCE = {"loss": "bce", "activation": "sigmoid"}
_BATCH = {"relabel": "batch"}
_STATES = {"value_reads": "state_and_action"}
_HEAD = {"head": "lm", "num_train_epochs": 4}
_HEAD_STATES = {**_HEAD, **_STATES}
_PVM = {"head": "scalar", "value_reads": "action", "num_train_epochs": 6}

VARIANTS = {
    BASELINE: Variant(
        "squared error, λ 0.95, β 1, labels once an epoch, 2 epochs, from pretrained weights", {}
    ),
    "bce": Variant("cross-entropy on a probability, soft targets", _BCE),
    "beta0": Variant("no progress loss", {"beta": 0.0}),
    "beta0.5": Variant("half the progress loss", {"beta": 0.5}),
    "batch": Variant("labels anew at every batch", _BATCH),
    "batch_beta0": Variant("labels anew at every batch, no progress loss", {**_BATCH, "beta": 0.0}),
    "lam0.9": Variant("λ 0.9", {"label_estimator_kwargs.lam": 0.9}),
    "lam1": Variant("λ 1: the return of the one trajectory", {"label_estimator_kwargs.lam": 1.0}),
    "last0.3": Variant("last step's promise weighs 0.3", {"last_step_weight": 0.3}),
    "last3": Variant("last step's promise weighs 3", {"last_step_weight": 3.0}),
    "epochs4": Variant("4 epochs", {"num_train_epochs": 4}),
    "from_policy": Variant("from the policy instead of the pretrained model", {}, model="policy"),
    "from_random": Variant("from random weights", {}, model="random"),
    "tasks192x4": Variant("a quarter of the tasks", {}, rollouts="rollouts192x4"),
    "tasks192x16": Variant(
        "192 tasks with 16 trajectories each: as many as 768 with 4", {}, rollouts="rollouts192x16"
    ),
    "tasks1536x4": Variant("1536 tasks with 4 trajectories: twice the data", {}, rollouts="rollouts1536x4"),
    "tasks3072x1": Variant("3072 tasks with one trajectory each", {}, rollouts="rollouts3072x1"),
    "tasks3072x4": Variant(
        "3072 tasks with 4 trajectories: four times the data", {}, rollouts="rollouts3072x4"
    ),
    "large": Variant(
        "3072 tasks with 4 trajectories, size m",
        {},
        model="pretrained_m",
        rollouts="rollouts3072x4",
    ),
    "states": Variant("values read before each action, too", _STATES),
    "head2": Variant("lm head, from the policy, 2 epochs", {"head": "lm"}, model="policy"),
    "head": Variant("lm head, from the policy, 4 epochs", _HEAD, model="policy"),
    "head_states": Variant("lm head, 4 epochs, states read too", _HEAD_STATES, model="policy"),
    "head_states8": Variant("the same, 8 epochs", {**_HEAD_STATES, "num_train_epochs": 8}, model="policy"),
    "head_1536x4": Variant(
        "the same, 2 epochs of 1536 tasks with 4 trajectories",
        {**_HEAD_STATES, "num_train_epochs": 2},
        model="policy",
        rollouts="rollouts1536x4",
    ),
    "head_192x16": Variant(
        "the same, 4 epochs of 192 tasks with 16 trajectories",
        _HEAD_STATES,
        model="policy",
        rollouts="rollouts192x16",
    ),
    "head_bce": Variant("lm head, cross-entropy on a probability", {**_HEAD_STATES, **_BCE}, model="policy"),
    "head_pretrained": Variant("lm head, states read too, from the pretrained model", _HEAD_STATES),
    "head0.03": Variant("lm head, τ 0.03", {**_HEAD_STATES, "lm_scale": 0.03}, model="policy"),
    "head0.3": Variant("lm head, τ 0.3", {**_HEAD_STATES, "lm_scale": 0.3}, model="policy"),
    "head_beta0": Variant("lm head, no progress loss", {**_HEAD_STATES, "beta": 0.0}, model="policy"),
    "head_lam1": Variant("lm head, λ 1", {**_HEAD_STATES, "label_estimator_kwargs.lam": 1.0}, model="policy"),
    "policy_epochs4": Variant("from the policy, 4 epochs", {"num_train_epochs": 4}, model="policy"),
    "pvm": Variant(
        "PVM: Monte-Carlo labels of half the trajectories", _PVM, recipe="train_pvm", labels="labels.jsonl"
    ),
    "pvm_hard": Variant(
        "the same rollouts as hard labels: one may succeed",
        _PVM,
        recipe="train_pvm",
        labels="labels_hard.jsonl",
    ),
    "policy_confidence": Variant("no reward model: the probability of each action", {}, recipe=""),
    **{
        f"{name}_x_policy": Variant(f"{name}, weighed by the policy's probabilities", {}, "", weighs=name)
        for name in (BASELINE, "bce", "orm", "head_states")
    },
    "orm": Variant("ORM: the outcome at the last action", {}, recipe="train_orm_scalar"),
    "orm_1536x4": Variant(
        "ORM, one epoch of 1536 tasks with 4 trajectories",
        {"num_train_epochs": 1},
        recipe="train_orm_scalar",
        rollouts="rollouts1536x4",
    ),
    "orm_bce": Variant("ORM with cross-entropy", _BCE, recipe="train_orm_scalar"),
    "bce_beta0": Variant("cross-entropy, no progress loss", {**_BCE, "beta": 0.0}),
    "bce_batch": Variant("cross-entropy, labels at every batch", {**_BCE, **_BATCH}),
    "bce_states": Variant("cross-entropy, states read too", {**_BCE, **_STATES}),
    "size_m": Variant("a PRM of size m", {}, model="pretrained_m"),
}


def train(root: Path, seed: int, names: Sequence[str]) -> None:
    """Train the variants of one seed; what exists is kept."""
    for name in names:
        if VARIANTS[name].recipe:
            trained_prm(root, seed, name)


def trained_prm(root: Path, seed: int, name: str) -> str:
    """Return the folder of a variant's model; made if it does not exist."""
    variant, folder = VARIANTS[name], str(root / f"s{seed}" / "prm" / name)
    overrides = {
        "eval_strategy": "no",
        **variant.settings,
        "seed": seed,
        "model": trained_model(root, seed, variant.model),
        "trajectories": rollouts(root, seed, variant.rollouts),
        "output_dir": folder,
    }
    if variant.labels:
        overrides["label_file"] = f"{_estimates(root, seed)}/{variant.labels}"
    prm.run(parsed(PRMConfig, variant.recipe, overrides))
    return folder


def measure(root: Path, seed: int, names: Sequence[str]) -> None:
    """Measure trained variants of one seed on dev tasks; what was measured is kept."""
    config = collect_config(root, seed, "dev-pool")
    config.split, config.first_task = "dev", 0
    config.num_tasks, config.samples_per_task = POOL_TASKS, POOL_SIZE
    pool = Pool.from_trajectories(collect.run(config).read())
    probe = _probe(root, seed)
    for name in names:
        file, trained = root / f"s{seed}" / "measured" / f"{name}.json", root / f"s{seed}" / "prm" / name
        variant = VARIANTS[name]
        if variant.weighs:
            trained = trained.with_name(variant.weighs)
        has_model = bool(variant.recipe or variant.weighs)
        if file.exists() or (has_model and not (trained / "stage.json").exists()):
            continue
        log.info("measuring %s, seed %d", name, seed)
        scorer: Scorer = PolicyConfidence()
        if has_model:
            scorer = CheckpointScorer.load(variant.weighs or name, str(trained))
        if variant.weighs:
            scorer = WithConfidence(scorer)
        scored = pool.scored(scorer)
        quality = step_quality(scored, name)
        found = {
            "best_of_n": {rule: _successes(best_of_n(scored, name, rule, BUDGETS)) for rule in AGGREGATIONS},
            "sample": sample_mean(pool).successes,
            "oracle": _successes(oracle(pool, BUDGETS)),
            "beam": _beam(config, scorer, "last"),
            "beam_min": _beam(config, scorer, "min"),
            "auc": quality.mid_auc,
            "auc_within_task": quality.mid_auc_within_task,
            "actions": evaluate_discrimination(probe, scorer).as_json(),
            "seconds": read_record(trained)["seconds"] if has_model else 0.0,
        }
        write_json(file, found)


def _successes(measured: Sequence[Measurement]) -> dict[str, Mapping[str, float]]:
    return {str(m.record.n): m.successes for m in measured}


def _estimates(root: Path, seed: int) -> str:
    """Return the folder of Monte-Carlo labels of some of the rollouts."""
    settings = {
        "seed": seed,
        "model": trained_model(root, seed, "policy"),
        "trajectories": rollouts(root, seed),
        "output_dir": str(root / f"s{seed}" / "estimates"),
        "samples_per_task": 2,
        "rollouts": 8,
    }
    estimate.run(parsed(EstimateConfig, "estimate", settings))
    return str(settings["output_dir"])


def _probe(root: Path, seed: int) -> str:
    """Return the folder with Monte-Carlo values of several actions at states of the dev tasks."""
    config = collect_config(root, seed, "dev-probe")
    settings = {"seed": seed, "model": config.model, "output_dir": config.output_dir}
    settings["trajectories"] = str(root / f"s{seed}" / "dev-pool")
    probe_actions.run(parsed(ProbeActionsConfig, "probe_actions", settings))
    return config.output_dir


def _beam(config: CollectConfig, scorer: Scorer, rule: str) -> dict[str, float]:
    policy, (n, m) = config.load_policy(), BEAM
    tasks = envs.tasks(config.environment, Split.DEV, 0, BEAM_TASKS, config.env_kwargs)
    portion = WAVE // (n * m)
    results = [
        result
        for start in range(0, len(tasks), portion)
        for result in search.load("beam").search(
            tasks[start : start + portion],
            policy,
            scorer,
            config.episode_setting(),
            run_seed=config.seed,
            n=n,
            m=m,
            aggregation=rule,
        )
    ]
    return {result.trajectory.task.id: float(result.trajectory.outcome.success) for result in results}


def main() -> None:
    """Run one part of the study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["train", "measure"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/study"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for seed in arguments.seeds:
        if arguments.part == "train":
            train(arguments.folder, seed, arguments.variants)
        elif arguments.part == "measure":
            measure(arguments.folder, seed, arguments.variants)


if __name__ == "__main__":
    main()
