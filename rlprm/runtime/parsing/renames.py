"""Names and defaults of settings that have changed: old records are read as they were meant.

The table serves two readers. Records on disk (of stages, checkpoints and PRMs) are translated in
silence. Recipes and command lines are translated with a warning that names the new setting.

Records hold those settings of an environment that were given. If the default of such a setting changes, a
record without the setting means the old default. New records therefore state the setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "CHANGED_DEFAULTS",
    "RENAMED_SETTINGS",
    "RENAMED_VALUES",
    "current_settings",
    "with_new_defaults",
    "with_old_defaults",
]

_LABELS = {"estimator": "label_estimator", "estimator_kwargs": "label_estimator_kwargs"}

RENAMED_SETTINGS: Mapping[str, Mapping[str, str]] = {
    "label": _LABELS,
    "train-prm": {
        **_LABELS, "labels": "label_file", "refresh": "relabel", "likelihood_scale": "lm_scale",
    },
    "train-rl": {
        "estimator": "advantage", "estimator_kwargs": "advantage_kwargs", "stop_on_alarm": "on_alarm",
    },
    "evaluate": {"likelihood_per": "confidence_per", "confident": "with_confidence"},
}  # fmt: skip
"""Stage → old name of a setting → its name since 0.2."""

RENAMED_VALUES: Mapping[str, Mapping[str, Mapping[Any, Any]]] = {
    "train-prm": {"head": {"likelihood": "lm"}},
    "train-rl": {"on_alarm": {"True": "stop", "False": "warn", "true": "stop", "false": "warn"}},
}
"""Stage → name of a setting → old value → its value since 0.2."""

_REMOVED = {"train-rl": ("alarm_window", "alarm_gap")}
"""Stage → settings of records that have no counterpart and decided no result."""

CHANGED_DEFAULTS: Mapping[str, Mapping[str, tuple[Any, Any]]] = {
    "math": {"answers": ("strict", "flexible")},
}
"""Environment → name of a setting of ``env_kwargs`` → its default, or the only behaviour, before, and now."""
_BUILT_IN = "rlprm.envs."


def current_settings(stage: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that a record holds under the names, and with the values, of this version.

    Args:
        stage: of the command line, for instance ``"train-prm"``.
        settings: by name; those whose name has not changed stay as they are.
    """
    names, values = RENAMED_SETTINGS.get(stage, {}), RENAMED_VALUES.get(stage, {})
    if stage == "train-prm" and isinstance(settings.get("label_file"), Mapping):  # its meta, in 0.1
        meta = current_settings("label", settings["label_file"])
        settings = {**{k: v for k, v in settings.items() if k != "label_file"}, "label_file_meta": meta}
    current = {names.get(name, name): value for name, value in settings.items()}
    for name, renamed in values.items():
        if isinstance(value := current.get(name), str | bool):
            current[name] = renamed.get(str(value), value)
    for name in _REMOVED.get(stage, ()):
        current.pop(name, None)
    if stage == "train-rl":
        current.setdefault("shuffle_tasks", False)  # the order of the list was the only one until 0.2
    if isinstance(handed_on := current.get("refresh_kwargs"), Mapping):
        current["refresh_kwargs"] = _dotted("train-prm", handed_on)
    return with_old_defaults(current)


def with_old_defaults(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored settings in which the environment's settings are stated whose default has changed since.

    Args:
        stored: settings by name. Settings of trajectories or labels may be nested in them.
    """
    current = {
        name: with_old_defaults(value) if isinstance(value, Mapping) and name != "env_kwargs" else value
        for name, value in stored.items()
    }
    environment, given = current.get("environment"), current.get("env_kwargs")
    if isinstance(environment, str) and isinstance(given, Mapping):
        defaults = CHANGED_DEFAULTS.get(environment.removeprefix(_BUILT_IN), {})
        missing = {name: old for name, (old, _) in defaults.items() if name not in given}
        current["env_kwargs"] = {**given, **missing}
    return current


def with_new_defaults(environment: str, env_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an environment, those stated whose default has changed.

    Args:
        environment: name of the environment.
        env_kwargs: its settings, as they were given.
    """
    defaults = CHANGED_DEFAULTS.get(environment.removeprefix(_BUILT_IN), {})
    return {**env_kwargs, **{name: new for name, (_, new) in defaults.items() if name not in env_kwargs}}


def _dotted(stage: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Translate names of which each may be followed by a key of its mapping (``estimator_kwargs.lam``)."""
    names = RENAMED_SETTINGS[stage]
    current = {}
    for name, value in settings.items():
        first, dot, rest = name.partition(".")
        current[names.get(first, first) + dot + rest] = RENAMED_VALUES[stage].get(name, {}).get(value, value)
    return current
