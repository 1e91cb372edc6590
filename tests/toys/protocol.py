"""Made-up records of the protocol, and recipes for a unit in the corridor that takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studies.protocol.arms import GROUPS, REFERENCE
from studies.protocol.environments import GUIDANCE, Environment

ARMS = (REFERENCE, *GROUPS["primary"].arms)


def row(successes: Sequence[float], *, scorer: str | None = None, tokens: float = 100.0) -> dict[str, Any]:
    """A row of a record."""
    return {
        "strategy": "beam", "scorer": scorer, "aggregation": "last", "n": 4, "m": 4,
        "costs": {"total_tokens": tokens, "env_steps": tokens / 10}, "successes": list(successes),
        "trainings": [sum(successes) / len(successes)],
        "dev": {"last": sum(successes) / len(successes)},
    }  # fmt: skip


def record(
    seed: int, successes: dict[str, Sequence[float]], goals: list[str] | None = None
) -> dict[str, Any]:
    """A record of the group primary on a guidance environment; arms that are not named never succeed."""
    count = len(next(iter(successes.values())))
    rows = {
        name: row(successes.get(name, [0.0] * count), scorer=name) for name in (*ARMS, "transcript", "random")
    }
    auc = {q: {"all": 0.7, "within_tasks": 0.6} for q in ("0.25", "0.5", "0.75")}
    running = {q: {"t": 2, "within_tasks": 0.55, "tasks": 9} for q in auc}
    return {
        "environment": "babyai", "kind": GUIDANCE, "endpoint": "beam", "group": "primary", "seed": seed,
        "command": f"python -m studies.protocol.run --seeds {seed}", "scale": 1.0, "estimates": None,
        "made": {"processor": "a processor", "commit": "0123456789abcdef"},
        "seconds": {"total": 3600}, "settings": {"policy": {"size": "s"}}, "recipes": "0123456789ab",
        "tasks": [f"t{i}" for i in range(count)], "goals": goals, "rollouts": {"env_steps": 10_000},
        "arms": {name: {"about": f"about {name}", "training": [{"steps": 100}] * 2} for name in ARMS},
        "free": {name: row([0.0] * count) for name in ("one_sample", "greedy", "oracle")},
        "best_of_n": rows, "beam": rows, "search": {},
        "equal_cost": {
            f"beam {REFERENCE}, total_tokens": {**rows["transcript"], "n": 7.5, "beyond_pool": False}
        },
        "quality": {name: {"auc": [auc], "auc_running": [running], "actions": [None]} for name in rows},
    }  # fmt: skip


_TASKS = "environment: tests.toys.corridor\nenv_kwargs: {length: 4}\nround_limit: 6\n"
_EPISODE = f"{_TASKS}max_new_tokens: 8\n"
_TRAINING = "per_device_train_batch_size: 8\ndisable_tqdm: true\nbf16: false\n"
_RECIPES = {
    "sft": f"{_TASKS}{_TRAINING}model: tiny\nsize: xs\nvocab_size: 300\ncontext_length: 512\nworkers: 1\n"
    "num_demonstrations: 64\nnum_train_epochs: 6\nlearning_rate: 5.0e-3\noutput_dir: ${root}/policy\n",
    "clone": f"{_TASKS}{_TRAINING}model: ${{root}}/policy\ntrajectories: ${{root}}/rollouts\n"
    "only_successes: true\nepochs_of: given\nmax_length: 512\noutput_dir: ${root}/clone\n",
    "collect": f"{_EPISODE}model: ${{root}}/policy\nfirst_task: 1000\nnum_tasks: 12\nsamples_per_task: 4\n"
    "temperature: 1.5\noutput_dir: ${root}/rollouts\n",
    "train_prm": f"{_TRAINING}model: ${{root}}/policy\ntrajectories: ${{root}}/rollouts\nhead: lm\n"
    "value_reads: state_and_action\nlabel_estimator: td_gae\nlabel_estimator_kwargs: {lam: 0.95}\n"
    "num_train_epochs: 2\nlearning_rate: 1.0e-3\nheld_out_fraction: 0.25\noutput_dir: ${root}/agentprm\n",
    "evaluate": f"{_EPISODE}model: ${{root}}/policy\nscorers:\n  agentprm: ${{root}}/agentprm\n"
    "budgets: [1, 16]\nchosen_at: 16\n",
    "probe_actions": f"{_EPISODE}model: ${{root}}/policy\ntrajectories: ${{root}}/dev-pool\nnum_states: 4\n"
    "rollouts: 4\ntemperature: 1.5\noutput_dir: ${root}/action-probe\n",
    "estimate": f"{_EPISODE}model: ${{root}}/policy\ntrajectories: ${{root}}/rollouts\nrollouts: 2\n"
    "temperature: 1.5\noutput_dir: ${root}/estimates\n",
}


def corridor(folder: Path) -> Environment:
    """A guidance environment whose recipes are in a folder."""
    folder.mkdir(parents=True)
    for stage, text in _RECIPES.items():
        (folder / f"{stage}_tiny.yaml").write_text(text, encoding="utf-8")
    return Environment("corridor", GUIDANCE, str(folder))
