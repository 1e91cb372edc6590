"""The manifest of a PRM checkpoint: a file beside the weights that says how the PRM was trained.

A PRM's scores are meaningful only in the setting it was trained in. Later stages take that setting
from the manifest, or refuse a mismatch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlprm.errors import ArtifactError, DataError, MismatchError
from rlprm.models.heads import SCALAR
from rlprm.models.hub.download import model_folder
from rlprm.runtime.files import read_json, write_json
from rlprm.runtime.parsing.renames import current_settings

FILE = "prm_manifest.json"


@dataclass(frozen=True)
class Manifest:
    """How a reward model was trained, and how its values are computed from its outputs."""

    label_estimator: str
    """Name of the label estimator; a PRM with ``outcome`` labels is an ORM."""
    label_estimator_kwargs: Mapping[str, Any]
    beta: float
    loss: str
    activation: str
    """From the head's output to a value, see ``rlprm.functional.activation``."""
    relabel: str
    cold_start_epochs: float
    value_reads: str
    """``"action"`` or ``"state_and_action"``, see ``rlprm.models.heads.value_positions``."""
    outcome: str
    """``"success"`` or ``"score"``: which number the labels were made of."""
    outcome_definition: str
    environment: str
    env_kwargs: Mapping[str, Any]
    end: str
    round_limit: int | None
    prompt: str
    action_format: str
    template: str
    """Hash of chat template and vocabulary."""
    base: str
    """Revision of the weights training started from."""
    policy: str
    """Revision of the policy that sampled the trajectories."""
    head: str = SCALAR
    """``"scalar"`` or ``"lm"``, see ``rlprm.models.heads.value_positions``."""
    lm_scale: float | None = None
    """τ of an lm head."""
    last_step_weight: float = 1.0
    """Weight of the last step's promise target; 1 for PRMs from before this field."""
    temperature: float | None = None
    """Sampling temperature of the trajectories; None if not recorded (0.1)."""
    env_steps: int | None = None
    """Environment steps of the trajectories, and of the rollouts that made stored labels; None if not
    recorded."""
    format: int = 1

    def save(self, folder: str | Path) -> None:
        """Write the manifest beside a checkpoint."""
        write_json(Path(folder) / FILE, dataclasses.asdict(self))

    @classmethod
    def load(cls, folder: str | Path) -> Manifest:
        """Read a checkpoint's manifest.

        Args:
            folder: of the checkpoint, or its hub id.

        Raises:
            ArtifactError: if the checkpoint has no manifest and is therefore no PRM of this package.
            DataError: if the manifest has another format or other fields than this version knows.
        """
        path = model_folder(str(folder), "PRM") / FILE
        if not path.exists():
            raise ArtifactError(f"{folder} is not a PRM: no {FILE} in it")
        fields = read_json(path)
        if isinstance(fields, dict):
            fields = current_settings("train-prm", fields)
        try:
            manifest = cls(**fields)
        except TypeError as error:
            raise DataError(f"{path} does not fit this version: {error}") from error
        if manifest.format != cls.format:
            raise DataError(f"{path} has format {manifest.format!r}, this version reads {cls.format}")
        return manifest

    def require(self, **wanted: Any) -> None:
        """Refuse to use the PRM in another setting.

        Args:
            **wanted: fields of the manifest and the values that the caller uses.

        Raises:
            MismatchError: naming each difference.
        """
        different = {k: v for k, v in wanted.items() if getattr(self, k) != v}
        if different:
            details = ", ".join(
                f"{k}: trained with {getattr(self, k)!r}, used with {v!r}" for k, v in different.items()
            )
            raise MismatchError(f"the PRM does not fit this setting ({details})")
