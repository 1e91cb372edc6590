"""Names of settings that have changed: what was written under an old name is read under the new one.

The table serves two readers. Records on disk (of stages, checkpoints and PRMs) are translated in
silence. Recipes and command lines are translated with a warning that names the new setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["RENAMED_SETTINGS", "RENAMED_VALUES", "current_settings"]

_LABELS = {"estimator": "label_estimator", "estimator_kwargs": "label_estimator_kwargs"}

RENAMED_SETTINGS: Mapping[str, Mapping[str, str]] = {
    "label": _LABELS,
    "train-prm": {
        **_LABELS, "labels": "label_file", "refresh": "relabel", "likelihood_scale": "lm_scale",
    },
    "train-rl": {"estimator": "advantage", "estimator_kwargs": "advantage_kwargs"},
    "evaluate": {"likelihood_per": "confidence_per", "confident": "with_confidence"},
}  # fmt: skip
"""Stage → old name of a setting → its name since 0.2."""

RENAMED_VALUES: Mapping[str, Mapping[str, Mapping[Any, Any]]] = {
    "train-prm": {"head": {"likelihood": "lm"}},
}
"""Stage → name of a setting → old value → its value since 0.2."""


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
        if isinstance(value := current.get(name), str):
            current[name] = renamed.get(value, value)
    if stage == "train-rl":
        current.setdefault("shuffle_tasks", False)  # the order of the list was the only one until 0.2
    if isinstance(handed_on := current.get("refresh_kwargs"), Mapping):
        current["refresh_kwargs"] = _dotted("train-prm", handed_on)
    return current


def _dotted(stage: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Translate names of which each may be followed by a key of its mapping (``estimator_kwargs.lam``)."""
    names = RENAMED_SETTINGS[stage]
    current = {}
    for name, value in settings.items():
        first, dot, rest = name.partition(".")
        current[names.get(first, first) + dot + rest] = RENAMED_VALUES[stage].get(name, {}).get(value, value)
    return current
