"""What a setting is: a field of a dataclass whose type, bounds, choices and group stand beside its default.

    num_tasks: int = setting(256, "Number of tasks.", least=1, group="Tasks")

:func:`check` compares every setting of a configuration with its declaration. :class:`Settings` calls it, so
that a recipe, a command line and a configuration made in Python are checked by the same code. Rules that
relate several settings stay in the ``__post_init__`` of their class.

This module imports no model library: help and mistakes are answered in well under a second.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib.util
import math
import pkgutil
import types
import typing
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rlprm.components import canonical
from rlprm.errors import ConfigError, UnknownComponentError

__all__ = [
    "DESTINATIONS",
    "FAMILIES",
    "Declaration",
    "Settings",
    "allowed_values",
    "check",
    "components_of",
    "declaration_of",
    "declarations",
    "matches",
    "own_settings",
    "setting",
    "type_name",
    "wrong_type",
]

DESTINATIONS = frozenset({"output_dir", "report_to"})
"""Settings that say where results go, and so do not determine a result."""
FAMILIES = {
    "environment": "envs",
    "label estimator": "labels",
    "step reward": "rl/rewards",
    "advantage estimator": "rl/advantages",
}
"""Family of components → its folder in the package."""
_NO_COMPONENT = "base"
_DECLARATION = "declaration"


@dataclass(frozen=True)
class Declaration:
    """What stands beside a setting's default."""

    help: str
    """One or two sentences that ``--help`` shows."""
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    family: str = ""
    """Family of components, see :data:`FAMILIES`, if the setting names one."""
    kwargs: str = ""
    """Name of the setting that holds the component's own settings."""
    required: bool = False
    """Whether an empty value (no text, no entry) is refused."""
    library: bool = False
    """Whether the trainer's library has a setting of the same name, which gets this value."""
    group: str = "Settings"
    recorded: str = "always"
    """When the setting belongs to the record of a result: ``always``, ``never``, ``changed`` (not at its
    default, so that records from before the setting stay valid), or ``whether`` (not at its default either,
    and as ``True``: what it is set to changes no result)."""


def setting(
    default: Any,
    description: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    choices: Sequence[str] = (),
    family: str = "",
    kwargs: str = "",
    required: bool = False,
    library: bool = False,
    group: str = "Settings",
    recorded: str = "always",
) -> Any:
    """Declare a setting.

    Bounds and choices hold for each item of a list. Numbers are always finite.

    Args:
        default: its value if nothing is given.
        description: what ``--help`` shows.
        least: smallest value allowed.
        above: bound that the value must exceed.
        most: largest value allowed.
        below: bound that the value must stay under.
        choices: the only texts allowed.
        family: family of components the value names, a key of :data:`FAMILIES`.
        kwargs: the setting that holds the settings of the component named.
        required: refuse an empty value.
        library: the value is passed on to the trainer's library under the same name.
        group: heading under which ``--help`` shows it.
        recorded: ``always``, ``changed``, ``whether`` or ``never``, see :class:`Declaration`.
    """
    declaration = Declaration(
        description,
        least,
        above,
        most,
        below,
        tuple(choices),
        family,
        kwargs,
        required,
        library,
        group,
        recorded,
    )
    metadata = {_DECLARATION: declaration}
    if isinstance(default, (dict, list)):
        return dataclasses.field(default_factory=lambda: deepcopy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass
class Settings:
    """Base of every configuration: checks its settings when it is made."""

    STAGE: ClassVar[str] = ""
    """Name of the stage on the command line."""
    LIBRARY: ClassVar[str] = ""
    """Class of a library whose settings are accepted by name, see ``rlprm.runtime.parsing.library``."""

    def __post_init__(self) -> None:
        """Compare every setting with its declaration; store one name for all paths of a component.

        Raises:
            ConfigError: naming the setting, what was received and what is allowed.
        """
        check(self)
        for name, declared in declarations(self).items():
            if declared.family:
                setattr(self, name, canonical(getattr(self, name)))

    def unused(self) -> dict[str, str]:
        """Return settings without effect beside the others → the reason, for instance ``"head scalar"``."""
        return {}


def declaration_of(field: dataclasses.Field[Any]) -> Declaration:
    """Return what was declared beside a field's default."""
    declared: Declaration = field.metadata.get(_DECLARATION) or Declaration("")
    return declared


def declarations(config_type: Any) -> dict[str, Declaration]:
    """Return the declaration of each setting of a configuration, by name."""
    return {field.name: declaration_of(field) for field in dataclasses.fields(config_type) if field.init}


def check(config: Any) -> None:
    """Compare each setting with its declared type, bounds and choices.

    Raises:
        ConfigError: naming the setting, what was received and what is allowed.
        UnknownComponentError: if a component of that name does not exist.
    """
    hints = typing.get_type_hints(type(config))
    for name, declared in declarations(config).items():
        value = getattr(config, name)
        if not matches(value, hints[name]):
            raise wrong_type(name, hints[name], value)
        if declared.required and not value:
            raise ConfigError(f"{name}: nothing given; set it in the recipe or with --{name}")
        for item in value if isinstance(value, list) else [value]:
            if item is not None and not _is_allowed(item, declared):
                if declared.family:
                    raise _unknown_component(name, item, declared.family)
                allowed = allowed_values(declared, hints[name])
                raise ConfigError(f"{name}: got {value!r}, allowed: {allowed}")


def own_settings(config: Any) -> dict[str, Any]:
    """Return the settings that determine a result and that no library has.

    Left out: those that a trainer's library gets, where results and metrics go, and what a declaration leaves
    out of records.
    """
    return {
        field.name: True if declaration_of(field).recorded == "whether" else getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.init and field.name not in DESTINATIONS and _is_recorded(config, field)
    }


def _is_recorded(config: Any, field: dataclasses.Field[Any]) -> bool:
    declared = declaration_of(field)
    if declared.recorded in ("changed", "whether"):
        made = field.default_factory
        default = field.default if made is dataclasses.MISSING else made()
        return bool(getattr(config, field.name) != default)
    return not declared.library and declared.recorded != "never"


def allowed_values(declared: Declaration, hint: Any) -> str:
    """Return in words what a setting may be; empty if its type says everything."""
    least, above, most, below = (
        None if bound is None else f"{bound:g}"
        for bound in (declared.least, declared.above, declared.most, declared.below)
    )
    if declared.choices:
        text = ", ".join(declared.choices)
    elif least is not None and most is not None:
        text = f"{least} to {most}"
    elif above is not None and below is not None:
        text = f"between {above} and {below}"
    else:
        lower = f"{least} or more" if least is not None else f"above {above}" if above is not None else ""
        upper = f"up to {most}" if most is not None else f"below {below}" if below is not None else ""
        text = ", ".join(filter(None, (lower, upper)))
    if not text and hint in (float, float | None):
        text = "a finite number"
    return f"{text}, or unset" if text and type(None) in typing.get_args(hint) else text


def components_of(family: str) -> list[str]:
    """Return the names of a family's components that come with the package, without importing any."""
    folder = Path(__file__).parents[1] / FAMILIES[family]
    names = (module.name for module in pkgutil.iter_modules([str(folder)]))
    return sorted(name for name in names if not name.startswith("_") and name != _NO_COMPONENT)


def matches(value: Any, hint: Any) -> bool:
    """Whether a value has a declared type; a whole number is a number, a truth value is not."""
    if hint is Any:
        return True
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(matches(value, arg) for arg in args)
    if origin is list:
        return isinstance(value, list) and all(matches(item, args[0]) for item in value)
    if origin is dict:
        return isinstance(value, Mapping)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if not isinstance(hint, type):
        return True
    if issubclass(hint, enum.Enum):
        return isinstance(value, (hint, str))
    return isinstance(value, hint)


def wrong_type(name: str, hint: Any, value: Any) -> ConfigError:
    """Return the error for a value of another type than the declared one."""
    return ConfigError(f"{name}: expected {type_name(hint)}, got {type(value).__name__} {value!r}")


def type_name(hint: Any) -> str:
    """Return a type as it is written in Python."""
    return hint.__name__ if type(hint) is type else str(hint).replace("typing.", "")


def _is_allowed(value: Any, declared: Declaration) -> bool:
    if declared.family:
        return _may_be_component(str(value), declared.family)
    if declared.choices:
        return value in declared.choices
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return True
    # Each comparison is written so that NaN fails it.
    bounds = (
        math.isfinite(value),
        declared.least is None or value >= declared.least,
        declared.above is None or value > declared.above,
        declared.most is None or value <= declared.most,
        declared.below is None or value < declared.below,
    )
    return all(bounds)


def _may_be_component(name: str, family: str) -> bool:
    """Whether a name is a component's, or may be that of a user's own module, which is imported later."""
    if name in components_of(family) or "." in name.strip(".") or "/" in name:
        return True
    return name.isidentifier() and (
        Path(f"{name}.py").is_file() or Path(name, "__init__.py").is_file() or _is_module(name)
    )


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # __main__ and others without a specification
        return False


def _unknown_component(name: str, value: Any, family: str) -> UnknownComponentError:
    return UnknownComponentError(
        f"{name}: unknown {family} {value!r}; known: {', '.join(components_of(family))} "
        "(or a module of your own)"
    )
