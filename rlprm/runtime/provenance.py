"""The settings that a policy, trajectories or a PRM were made with, compared with those of a run.

A policy acts well only in the setting it was trained in. A policy that was trained with ``prompt: none``
and acts with ``prompt: short`` may solve a third of the tasks; nothing else shows the reason. Each stage
therefore compares what it is given with its own settings and logs one warning line for each artifact that
differs. Differences that make a result meaningless are refused elsewhere (``Manifest.require``,
``PolicyConfig.require_setting_of``).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rlprm.runtime.parsing.renames import with_old_defaults
from rlprm.runtime.processes import is_first
from rlprm.runtime.record import has_record, read_record

__all__ = [
    "EPISODE_SETTINGS",
    "Difference",
    "differences",
    "episode_settings",
    "settings_of_model",
    "warn_of_differences",
    "warn_of_policy",
]

log = logging.getLogger(__name__)
EPISODE_SETTINGS = (
    "environment", "env_kwargs", "end", "round_limit", "prompt", "action_format", "temperature",
)  # fmt: skip
"""The settings that decide what an episode is like."""


class Difference(NamedTuple):
    """A setting with two values."""

    name: str
    """For instance ``"prompt"``; a setting of the environment is ``"env_kwargs.levels"``."""
    there: Any
    """The value that the artifact was made with."""
    here: Any
    """The value of this run."""

    def __str__(self) -> str:
        """For instance ``prompt 'none' there, 'short' here``."""
        return f"{self.name} {self.there!r} there, {self.here!r} here"


def differences(
    there: Mapping[str, Any], here: Mapping[str, Any], names: Iterable[str] = EPISODE_SETTINGS
) -> list[Difference]:
    """Return the settings whose values differ, in the order of ``names``.

    A setting that only one side has is not compared: demonstrations have no temperature. Settings of
    the environment are compared one by one, and not at all if the environments differ.

    Args:
        there: settings of an artifact.
        here: settings of the run.
        names: the settings to compare.
    """
    there, here = _plain(there), _plain(here)
    different: list[Difference] = []
    for name in names:
        if name not in there or name not in here or there[name] == here[name]:
            continue
        if name == "temperature" and None in (there[name], here[name]):  # not known
            continue
        if name != "env_kwargs":
            different.append(Difference(name, there[name], here[name]))
        elif not any(difference.name == "environment" for difference in different):
            old, new = there[name] or {}, here[name] or {}
            different += [
                Difference(f"{name}.{key}", old.get(key), new.get(key))
                for key in sorted(old.keys() | new.keys())
                if old.get(key) != new.get(key)
            ]
    return different


def episode_settings(source: Any) -> dict[str, Any]:
    """Return those of :data:`EPISODE_SETTINGS` that an object (a stage's settings, a manifest) has."""
    return {name: getattr(source, name) for name in EPISODE_SETTINGS if hasattr(source, name)}


def settings_of_model(path: str) -> dict[str, Any]:
    """Return the episode settings that a model was trained in, from the record in its folder.

    The record of ``sft`` or ``train-rl`` has them among its settings, that of ``train-prm`` in its
    trajectories' settings. A model of the hub, or of another program, has no record.

    Returns:
        The settings by name; none without a record.
    """
    if not has_record(path):
        return {}
    settings = read_record(Path(path)).get("config", {})
    known = {**settings.get("data", {}), **settings} if isinstance(settings.get("data"), dict) else settings
    return with_old_defaults({name: known[name] for name in EPISODE_SETTINGS if name in known})


def warn_of_differences(
    what: str,
    there: Mapping[str, Any],
    here: Mapping[str, Any],
    names: Iterable[str] = EPISODE_SETTINGS,
) -> None:
    """Log one warning line if an artifact was made in another setting; see :func:`differences`.

    Args:
        what: the artifact, for instance ``"the policy runs/sft"``.
        there: settings of the artifact.
        here: settings of the run.
        names: the settings to compare.
    """
    different = differences(there, here, names)
    if different and is_first():
        transfer = any(difference.name.startswith("env") for difference in different)
        log.warning(
            "%s was made in another setting than it is used in: %s%s", what,
            "; ".join(map(str, different)), " (this is a transfer)" if transfer else "",
        )  # fmt: skip


def warn_of_policy(config: Any) -> None:
    """Log one warning line if the policy ``config.model`` was trained in another setting."""
    if getattr(config, "endpoint", ""):
        return  # the model is a tokenizer's, and not the policy
    warn_of_differences(
        f"the policy {config.model}", settings_of_model(config.model), episode_settings(config)
    )


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they would be read from a file, where tuples are lists and enums are strings."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(settings)))
    return plain
