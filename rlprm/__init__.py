"""rlprm: train LLM agents with process rewards (AgentPRM, arXiv 2511.08325).

The names in ``__all__`` are the public face; everything else is private by convention. Each is imported
when it is first used, so that ``import rlprm`` itself loads no model library. :mod:`rlprm.api` describes the
functions, :mod:`rlprm.types` the plain types.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlprm.api import (
        beam_search,
        best_of_n,
        load_environment,
        load_policy,
        load_prm,
        run_episodes,
        run_search,
        td_gae_labels,
        train_prm,
        train_rl,
    )
    from rlprm.errors import RlprmError
    from rlprm.types import (
        End,
        EpisodeSetting,
        Message,
        Outcome,
        Split,
        Step,
        StepLabels,
        StepScores,
        StopReason,
        Task,
        Trajectory,
        Turn,
    )

__version__ = "0.2.0.dev0"

__all__ = [
    "End",
    "EpisodeSetting",
    "Message",
    "Outcome",
    "RlprmError",
    "Split",
    "Step",
    "StepLabels",
    "StepScores",
    "StopReason",
    "Task",
    "Trajectory",
    "Turn",
    "__version__",
    "beam_search",
    "best_of_n",
    "load_environment",
    "load_policy",
    "load_prm",
    "run_episodes",
    "run_search",
    "td_gae_labels",
    "train_prm",
    "train_rl",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    is_error = name.endswith("Error")
    module = "errors" if is_error else "types" if name[0].isupper() else "api"
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
