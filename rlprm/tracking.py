"""Weights & Biases behind one door: works without a key or a network, off unless asked for."""

from __future__ import annotations

import logging
import netrc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlprm.errors import ConfigError

log = logging.getLogger(__name__)

TRACKERS = ("none", "wandb")


def prepare(report_to: str | Sequence[str] | None) -> None:
    """Settle where W&B writes before any library starts it.

    Without a key the run is kept on disk (``wandb/offline-run-*``, to be sent later with
    ``wandb sync``) rather than stopping to ask for one.
    """
    if "wandb" not in _names(report_to):
        return
    os.environ.setdefault("WANDB_PROJECT", "rlprm")
    if "WANDB_MODE" not in os.environ and not _has_key():
        os.environ["WANDB_MODE"] = "offline"
        log.info("no W&B key: the run is kept under wandb/, send it with `wandb sync`")


def log_results(
    report_to: str,
    *,
    name: str,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    images: Sequence[Path],
) -> None:
    """Log a stage's final numbers and plots as one run; does nothing for ``"none"``.

    Raises:
        ConfigError: for an unknown tracker.
    """
    if report_to not in TRACKERS:
        raise ConfigError(f"report_to: got {report_to!r}, allowed: {', '.join(TRACKERS)}")
    if report_to == "none":
        return
    prepare(report_to)
    import wandb  # slow to import, and not needed by most runs

    with wandb.init(name=name, config=dict(config)) as run:
        run.log({**metrics, **{image.stem: wandb.Image(str(image)) for image in images}})


def _names(report_to: str | Sequence[str] | None) -> Sequence[str]:
    return [report_to] if isinstance(report_to, str) else report_to or []


def _has_key() -> bool:
    if "WANDB_API_KEY" in os.environ:
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
