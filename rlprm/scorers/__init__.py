"""Scorers of the steps of trajectories: trained models, and baselines without a model.

A module in this package that defines ``build`` is a scorer; so is a module of the user's own. Settings name
a scorer in one of three ways:

* ``runs/prm``: the folder, or hub id, of a trained PRM or ORM;
* ``./my_scorer.py``: a file whose ``build(name)`` makes the scorer;
* ``{kind: ./my_scorer.py, threshold: 0.5}``: a file, a dotted path or a name of :func:`available`, with the
  settings that its ``build`` takes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

from rlprm.components import available_in, canonical, check_call, load_component
from rlprm.components.files import is_path
from rlprm.errors import ConfigError
from rlprm.scorers.base import Scorer, ScorerModule

__all__ = [
    "REQUIRED",
    "Scorer",
    "ScorerModule",
    "available",
    "build",
    "canonical_setting",
    "load",
    "revision_of_setting",
    "weights_of_setting",
]

_NOT_SCORERS = frozenset({"base", "distributed", "with_confidence"})
REQUIRED = ("build",)
_KIND = "kind"


def available() -> list[str]:
    """Names of the scorers that come with the package."""
    return available_in(__name__, exclude=_NOT_SCORERS)


def load(name: str) -> ScorerModule:
    """Import a scorer's module by name, dotted path, or path of a ``.py`` file.

    The name must come from the run's settings.

    Raises:
        UnknownComponentError: listing the names there are.
        ConfigError: if a module of the user's own cannot be imported, or lacks a required name.
    """
    module = load_component(__name__, name, "scorer", exclude=_NOT_SCORERS, needs=REQUIRED)
    return cast(ScorerModule, module)


def canonical_setting(name: str, value: object) -> str | dict[str, Any]:
    """Return a setting of ``scorers`` in the form that records keep, and refuse what cannot be built.

    Args:
        name: of the scorer, shown in tables.
        value: one of the three forms of this module's docstring.

    Returns:
        The folder of a checkpoint, or a mapping with ``kind`` and settings.

    Raises:
        ConfigError: for another form, an unknown kind, or settings that its ``build`` does not take.
    """
    if isinstance(value, str) and value and not is_path(value):
        return value
    given = {_KIND: value} if isinstance(value, str) and value else value
    if not isinstance(given, Mapping) or not isinstance(given.get(_KIND), str):
        raise ConfigError(
            f"scorers.{name}: got {value!r}, allowed: the folder of a PRM or ORM, the path of a .py file, or "
            "a mapping with kind and settings"
        )
    setting = {**given, _KIND: canonical(given[_KIND])}
    kind, settings = _parts(setting)
    check_call(load(kind).build, (name,), settings, f"the scorer {kind}")
    return setting


def build(name: str, setting: Mapping[str, Any]) -> Scorer:
    """Build a scorer from a mapping with ``kind`` and settings.

    Raises:
        ConfigError: for settings that its ``build`` does not take.
    """
    kind, settings = _parts(setting)
    module = load(kind)
    check_call(module.build, (name,), settings, f"the scorer {kind}")
    return module.build(name, **settings)


def revision_of_setting(setting: Mapping[str, Any]) -> str:
    """Return a hash of a scorer's kind and settings; its source is recorded beside it.

    It is followed by the revision of weights that no setting names, see ``ScorerModule.revision``.
    """
    found = hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:12]
    kind, settings = _parts(setting)
    ask = getattr(load(kind), "revision", None)
    return f"{found}-{ask(**settings)}" if callable(ask) else found


def weights_of_setting(setting: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of those settings of a scorer that are weights, see ``ScorerModule.WEIGHTS``."""
    return tuple(getattr(load(setting[_KIND]), "WEIGHTS", ()))


def _parts(setting: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    return setting[_KIND], {key: value for key, value in setting.items() if key != _KIND}
