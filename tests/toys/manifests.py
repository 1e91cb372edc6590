"""What a PRM of the corridor says of itself."""

from __future__ import annotations

from typing import Any

from rlprm.models.manifest import Manifest


def manifest(template: str, **changed: Any) -> Manifest:
    """Return a manifest in which some fields are other ones."""
    fields: dict[str, Any] = {
        "label_estimator": "td_gae",
        "label_estimator_kwargs": {"lam": 0.95},
        "beta": 1.0,
        "loss": "mse",
        "activation": "identity",
        "relabel": "epoch",
        "cold_start_epochs": 1,
        "value_reads": "action",
        "outcome": "success",
        "outcome_definition": "corridor: at the goal when the episode ends",
        "environment": "tests.toys.corridor",
        "env_kwargs": {},
        "end": "declared",
        "round_limit": None,
        "prompt": "none",
        "action_format": "action_only",
        "template": template,
        "base": "b",
        "policy": "p",
    }
    return Manifest(**{**fields, **changed})
