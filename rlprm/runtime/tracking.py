"""Trackers behind one interface; W&B works without a key or a network. Off by default."""

from __future__ import annotations

import logging
import netrc
import os
import uuid
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlprm.errors import ConfigError
from rlprm.runtime.files import read_json, write_json

log = logging.getLogger(__name__)

_WANDB = "wandb.json"
TRACKERS = ("none", "wandb", "tensorboard")


def require_tracker(report_to: str) -> None:
    """Refuse a tracker that is not installed; imports none.

    Raises:
        ConfigError: with the command that installs it.
    """
    if report_to != "none" and find_spec(report_to) is None:
        raise ConfigError(f"report_to: {report_to} is not installed; pip install {report_to}")


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


class Tracker:
    """A run that is logged while it goes on; ``"none"`` logs to no tracker.

    Args:
        report_to: none, wandb or tensorboard.
        name: of the run.
        config: shown with it.
        folder: where TensorBoard's files go.
        resumes: whether a run that was begun in the folder goes on, instead of a new one. Its id is kept in
            ``wandb.json`` there. TensorBoard shows the files of one folder as one run anyway.

    Raises:
        ConfigError: for an unknown tracker, or one that is not installed.
    """

    def __init__(
        self, report_to: str, *, name: str, config: Mapping[str, Any], folder: Path, resumes: bool = False
    ) -> None:
        if report_to not in TRACKERS:
            raise ConfigError(f"report_to: got {report_to!r}, allowed: {', '.join(TRACKERS)}")
        self._wandb: Any = None
        self._board: Any = None
        if report_to == "wandb":
            prepare(report_to)
            import wandb  # slow to import, and not needed by most runs

            again: dict[str, Any] = {"id": _wandb_id(folder), "resume": "allow"} if resumes else {}
            self._wandb = wandb.init(name=name, config=dict(config), **again)
        elif report_to == "tensorboard":
            require_tracker(report_to)
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log numbers of one step."""
        if self._wandb is not None:
            self._wandb.log(dict(metrics), step=step)
        if self._board is not None:
            for name, value in metrics.items():
                self._board.add_scalar(name, value, step)

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Log a table; TensorBoard gets it as text."""
        if self._wandb is not None:
            import wandb

            self._wandb.log(
                {name: wandb.Table(columns=list(columns), data=[list(r) for r in rows])}, step=step
            )
        if self._board is not None:
            lines = [
                " | ".join(map(str, row)).replace("\n", " ")
                for row in (columns, ["---"] * len(columns), *rows)
            ]
            self._board.add_text(name, "\n".join(lines), step)

    def log_images(self, images: Sequence[Path], step: int) -> None:
        """Log pictures under the names of their files, to W&B only."""
        if self._wandb is not None and images:
            import wandb

            self._wandb.log({image.stem: wandb.Image(str(image)) for image in images}, step=step)

    def log_artifact(self, folder: Path, name: str) -> None:
        """Send a folder of weights, to W&B only."""
        if self._wandb is not None:
            import wandb

            artifact = wandb.Artifact(name, type="model")
            artifact.add_dir(str(folder))
            self._wandb.log_artifact(artifact)

    def finish(self) -> None:
        """End the run."""
        if self._wandb is not None:
            self._wandb.finish()
        if self._board is not None:
            self._board.close()


def log_results(
    report_to: str,
    *,
    folder: Path,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    images: Sequence[Path],
) -> None:
    """Log a stage's final numbers and plots as one run, named after its folder; ``"none"``: nowhere.

    Raises:
        ConfigError: for an unknown tracker.
    """
    tracker = Tracker(report_to, name=folder.name, config=config, folder=folder)
    tracker.log(metrics, 0)
    tracker.log_images(images, 0)
    tracker.finish()


def _names(report_to: str | Sequence[str] | None) -> Sequence[str]:
    return [report_to] if isinstance(report_to, str) else report_to or []


def _wandb_id(folder: Path) -> str:
    """Return the id of the W&B run that belongs to a folder; the first time a new one."""
    file = folder / _WANDB
    if not file.exists():
        write_json(file, {"id": uuid.uuid4().hex[:8]})
    return str(read_json(file)["id"])


def _has_key() -> bool:
    if "WANDB_API_KEY" in os.environ:
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
