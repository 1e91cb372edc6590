"""The scorers of an evaluation: those of its settings, and the free ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from rlprm import scorers
from rlprm.evaluation.compute import ModelSize, size_of
from rlprm.models.manifest import Manifest
from rlprm.runtime.provenance import episode_settings, settings_of_model, warn_of_differences
from rlprm.scorers.base import Scorer
from rlprm.scorers.checkpoint import CheckpointScorer
from rlprm.scorers.declared import Declared
from rlprm.scorers.model_confidence import ModelConfidence
from rlprm.scorers.policy_confidence import PolicyConfidence
from rlprm.scorers.random import Random
from rlprm.scorers.shortest import Shortest
from rlprm.scorers.transcript import Transcript
from rlprm.scorers.with_confidence import WithConfidence
from rlprm.stages.evaluate_parts.settings import EvaluateConfig

__all__ = ["RULE", "Scorers", "load_scorer", "load_scorers"]

RULE = "transcript"
"""The free scorer that reads outcomes off transcripts."""
DECLARED = "declared"
"""The free scorer that takes the agent's word."""
CONFIDENCE = "policy_confidence"
"""The free scorer that reads the policy's probabilities."""
_RANKED = (CONFIDENCE, RULE)
"""Free scorers whose aggregation is chosen on dev tasks; the others rank by the last step."""


@dataclass(frozen=True)
class Scorers:
    """All scorers of an evaluation."""

    checkpoints: list[Scorer]
    """Those of the settings."""
    products: list[WithConfidence]
    """Their values weighed by the policy's confidence."""
    free: list[Scorer]
    """Those without a model."""

    @property
    def with_rules(self) -> list[str]:
        """Names of the scorers whose aggregation is chosen on dev tasks."""
        ranked = [scorer for scorer in self.free if scorer.name in _RANKED]
        return [scorer.name for scorer in (*self.checkpoints, *self.products, *ranked)]

    @property
    def without_rules(self) -> list[str]:
        """Names of the scorers that rank by their last step."""
        return [scorer.name for scorer in self.free if scorer.name not in _RANKED]

    @property
    def by_name(self) -> dict[str, Scorer]:
        """All scorers by name."""
        return {scorer.name: scorer for scorer in (*self.checkpoints, *self.products, *self.free)}

    def sizes(self) -> dict[str, ModelSize | None]:
        """Return the size of each scorer's model; None if it has none, or none that is known."""
        models = {s.name: getattr(s, "model", None) for s in self.checkpoints}
        models |= {s.name: models[s.scorer.name] for s in self.products}
        return {
            name: size_of(model) if isinstance(model, PreTrainedModel) else None
            for name, model in models.items()
        }


def load_scorers(config: EvaluateConfig) -> Scorers:
    """Load or build the scorers of the settings, and those that every evaluation has."""
    checkpoints = [load_scorer(name, value, config) for name, value in config.scorers.items()]
    per = config.confidence_per
    free: list[Scorer] = [Shortest(), Random(seed=config.seed)]
    if CONFIDENCE in config.free_scorers():
        free.insert(0, PolicyConfidence(per))
    if RULE in config.free_scorers():
        free.append(Transcript(config.environment))
    if DECLARED in config.free_scorers():
        free.append(Declared())
    # A clone's scores are probabilities of actions already.
    weighed = [s for s in checkpoints if config.with_confidence and s.name not in config.clones()]
    return Scorers(checkpoints, [WithConfidence(scorer, per) for scorer in weighed], free)


def load_scorer(name: str, value: str | Mapping[str, Any], config: EvaluateConfig) -> Scorer:
    """Load or build a scorer; a checkpoint's manifest must fit the setting it is to be used in.

    A policy that was trained in another setting, such as a clone, is named in a warning.

    Raises:
        ArtifactError: if it is missing.
        MismatchError: if it was trained with another ``end``, prompt or action format.
    """
    if isinstance(value, Mapping):
        scorer = scorers.build(name, value)
    else:
        scorer = CheckpointScorer.load(name, value, dtype=config.dtype)
    if isinstance(scorer, ModelConfidence) and isinstance(value, Mapping):
        there = settings_of_model(value["model"])
        warn_of_differences(f"the model of {name}", there, episode_settings(config))
    if not isinstance(manifest := getattr(scorer, "manifest", None), Manifest):
        return scorer
    manifest.require(end=config.end, prompt=config.prompt, action_format=config.action_format)
    warn_of_differences(f"the PRM {name}", episode_settings(manifest), episode_settings(config))
    return scorer
