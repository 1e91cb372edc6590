"""The PRM's training during RL: the stage ``train-prm`` within the run, by all processes of the launch."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from rlprm import labels
from rlprm.errors import ConfigError
from rlprm.models.manifest import Manifest
from rlprm.prm.config import PRMConfig
from rlprm.rl.config import RLConfig
from rlprm.runtime.config import parse
from rlprm.runtime.processes import launched_count
from rlprm.stages import train_prm
from rlprm.training import nested_training

__all__ = ["check_refresh", "refresh_prm", "settings_of_refresh"]

log = logging.getLogger(__name__)
_FROM_ROLLOUTS = "monte_carlo"
"""Name in a manifest of the labels that ``rlprm estimate`` wrote to a file."""
_WITHOUT_FILE = "returns"
"""Label estimator of fresh episodes if the PRM's own labels came from a file."""


def refresh_prm(config: RLConfig, prm: str, trajectories: Path, output_dir: Path) -> None:
    """Train a PRM again on fresh trajectories; every process of the launch must call it.

    The result is the one of ``rlprm train-prm`` with the same settings in one process.

    Raises:
        TrainingError: if the loss is not finite.
    """
    with nested_training():
        train_prm.run(settings_of_refresh(config, prm, str(trajectories), str(output_dir)))


def check_refresh(config: RLConfig) -> None:
    """Refuse settings of the PRM's training that would end the run at the first refresh.

    Raises:
        ConfigError: as ``rlprm train-prm`` would; also for code that the PRM names, and the settings do
            not, and for a tracker: it follows the run of RL.
    """
    if not config.refresh_every:
        return
    prm = settings_of_refresh(config, config.prm, "-", config.output_dir)
    train_prm.refuse_endless_cold_start(prm, epochs=prm.num_train_epochs, max_steps=prm.max_steps)
    if prm.report_to not in ("none", ["none"]):
        raise ConfigError(f"refresh_kwargs.report_to: got {prm.report_to!r}, allowed: none")


def settings_of_refresh(config: RLConfig, prm: str, trajectories: str, output_dir: str) -> PRMConfig:
    """Return the settings of ``train-prm``: the PRM's own, and those of ``refresh_kwargs``.

    Raises:
        ConfigError: for settings that ``train-prm`` refuses, and for an update whose rows the processes of
            the launch cannot share equally.
    """
    manifest = Manifest.load(prm)
    chosen = config.refresh_kwargs
    settings = {
        "model": prm, "trajectories": trajectories, "output_dir": output_dir,
        "seed": config.seed,
        "label_estimator": chosen.get("label_estimator") or _estimator_of(manifest),
        "beta": manifest.beta, "loss": manifest.loss, "activation": manifest.activation,
        "relabel": manifest.relabel, "value_reads": manifest.value_reads, "outcome": manifest.outcome,
        "head": manifest.head, "last_step_weight": manifest.last_step_weight,
        "cold_start_epochs": 0, "num_train_epochs": 1, "learning_rate": 1e-4, "eval_strategy": "no",
    }  # fmt: skip
    kwargs = {}
    if settings["label_estimator"] == manifest.label_estimator:
        kwargs = {
            f"label_estimator_kwargs.{name}": value for name, value in manifest.label_estimator_kwargs.items()
        }
    if config.attn_implementation is not None:
        settings["attn_implementation"] = config.attn_implementation
    if config.trust_remote_code:
        settings["trust_remote_code"] = True
    if manifest.lm_scale is not None:
        settings["lm_scale"] = manifest.lm_scale
    given = {**settings, **kwargs, **chosen}
    parsed = parse(PRMConfig, [word for name, value in given.items() for word in (f"--{name}", str(value))])
    return _shared_rows(parsed, launched_count())


def _shared_rows(config: PRMConfig, processes: int) -> PRMConfig:
    """Return settings with which several processes share the rows that one process has in an update.

    ``train-prm`` itself counts rows a process: an update of two processes has twice as many rows. In RL the
    result must not depend on the number of processes.

    Raises:
        ConfigError: if the rows cannot be shared equally.
    """
    rows = config.per_device_train_batch_size * config.gradient_accumulation_steps
    if rows % processes:
        raise ConfigError(
            f"refresh_kwargs.per_device_train_batch_size times gradient_accumulation_steps: got {rows}, "
            f"allowed: a multiple of the {processes} processes"
        )
    own = rows // processes
    most = min(own, config.per_device_train_batch_size)
    batch = next(size for size in range(most, 0, -1) if own % size == 0)
    return replace(config, per_device_train_batch_size=batch, gradient_accumulation_steps=own // batch)


def _estimator_of(manifest: Manifest) -> str:
    """Return what labels the fresh episodes: the PRM's estimator, if it is a built-in one.

    Labels that no estimator makes (Monte-Carlo ones) were a file, of other episodes than these.

    Raises:
        ConfigError: for a module of the user's own. A PRM comes from a folder; only settings name code.
    """
    name = manifest.label_estimator
    if name in labels.available():
        return name
    if name != _FROM_ROLLOUTS:
        raise ConfigError(
            f"refresh_kwargs.label_estimator: nothing given, and the PRM learned from {name!r}, a module of "
            "your own; name the module here to load its code"
        )
    log.warning(
        "the PRM learned %s labels from a file, which has none of fresh episodes; those learn %s",
        manifest.label_estimator, _WITHOUT_FILE,
    )  # fmt: skip
    return _WITHOUT_FILE
