"""One way to configure every stage: a YAML file (:mod:`rlprm.runtime.recipes`), then the command line.

    rlprm <stage> --config babyai/collect_tiny.yaml --seed 3 --env_kwargs.levels "[GoToObjDoor]"

The command line wins over the file. A setting that is a mapping (``*_kwargs``)
is changed key by key with a dotted name; the value is read as YAML. Every
setting's type is checked; an unknown name is refused with the nearest known one.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, NoReturn, TypeVar, cast

from trl import TrlParser

from rlprm.errors import ConfigError, refuse_unknown
from rlprm.runtime.recipes import resolve
from rlprm.runtime.yaml_text import load_yaml

_T = TypeVar("_T")
_DESTINATIONS = frozenset({"output_dir", "report_to"})


def setting(default: Any, description: str) -> Any:
    """Declare a setting with its default and the line ``--help`` shows."""
    if isinstance(default, (dict, list)):
        return dataclasses.field(default_factory=lambda: deepcopy(default), metadata={"help": description})
    return dataclasses.field(default=default, metadata={"help": description})


class _Parser(TrlParser):
    """TRL's parser; a mistake is one clear line instead of a usage text."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def parse(config_type: type[_T], argv: Sequence[str], *, prog: str = "rlprm") -> _T:
    """Build a stage's configuration from command-line arguments.

    Args:
        config_type: a dataclass.
        argv: arguments after the stage's name; ``--config FILE`` may be among them.
        prog: name shown by ``--help``.

    Raises:
        ConfigError: for an unknown setting, a wrong type, or an impossible value.
        ArtifactError: if the configuration file does not exist.
    """
    file, overrides, rest = _split(argv)
    names = {field.name for field in dataclasses.fields(cast(Any, config_type)) if field.init}
    arguments = resolve(file, overrides, rest, names)
    values, overrides, rest = arguments.values, arguments.overrides, arguments.rest
    refuse_unknown({*values, *(path[0] for path, _ in overrides)}, names, where=file or "the command line")
    for path, value in overrides:
        _override(values, path, value, _default_mapping(config_type, path[0]))
    refuse_unknown(
        {a[2:].split("=")[0] for a in rest if a.startswith("--")} - {"help"}, names, "the command line"
    )
    parser = _Parser(config_type, prog=prog, allow_abbrev=False)
    _check_values(config_type, values)
    parser.set_defaults_with_config(**values)
    try:
        (config,) = parser.parse_args_into_dataclasses(args=rest)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error
    check_types(config)
    return cast(_T, config)


def check_types(config: Any) -> None:
    """Compare each setting with its declared type.

    Raises:
        ConfigError: naming the setting, what was received and what is allowed.
    """
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if _is_ours(type(config), field.name) and not _matches(value, hints[field.name]):
            raise _wrong_type(field.name, hints[field.name], value)


def _check_values(config_type: type, values: Mapping[str, Any]) -> None:
    """Compare values from a file with the declared types, before anything computes with them.

    Text is left to the command line's conversion ("1e-4" is a float). None is refused only where
    the setting is ours: libraries put it where they do not declare it.
    """
    hints = typing.get_type_hints(config_type)
    for name, value in values.items():
        allowed = isinstance(value, str) or (value is None and not _is_ours(config_type, name))
        if not allowed and not _matches(value, hints[name]):
            raise _wrong_type(name, hints[name], value)


def _wrong_type(name: str, hint: Any, value: Any) -> ConfigError:
    expected = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
    return ConfigError(f"{name}: expected {expected}, got {type(value).__name__} {value!r}")


def own_settings(config: Any) -> dict[str, Any]:
    """Return the settings this package declares that determine a result.

    Left out: those of transformers or trl, and where results and metrics go.
    """
    names = [f.name for f in dataclasses.fields(config) if _is_ours(type(config), f.name)]
    return {name: getattr(config, name) for name in names if name not in _DESTINATIONS}


def _is_ours(config_type: type, name: str) -> bool:
    """Whether a setting is declared by this package alone: libraries change the types of their own."""
    owners = [c for c in config_type.__mro__ if name in vars(c).get("__annotations__", {})]
    return not any(c.__module__.split(".")[0] in ("transformers", "trl") for c in owners)


def _matches(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_matches(value, arg) for arg in args)
    if origin is list:
        return isinstance(value, list) and all(_matches(item, args[0]) for item in value)
    if origin is dict:
        return isinstance(value, Mapping)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is typing.Literal:
        return value in args
    if not isinstance(hint, type):
        return True  # a library's own invention
    if issubclass(hint, enum.Enum):
        return isinstance(value, (hint, str))
    return isinstance(value, hint)


def _split(argv: Sequence[str]) -> tuple[str | None, list[tuple[list[str], Any]], list[str]]:
    """Separate ``--config FILE`` and dotted overrides from the rest."""
    file: str | None = None
    overrides: list[tuple[list[str], Any]] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        name, has_value, value = word.partition("=")
        if name == "--config":
            file = value if has_value else next(words, None)
            if file is None:
                raise ConfigError("--config needs the path of a YAML file")
        elif name.startswith("--") and "." in name:
            text = value if has_value else next(words, None)
            if text is None:
                raise ConfigError(f"{name} needs a value")
            overrides.append((name[2:].split("."), load_yaml(text, where=name)))
        else:
            rest.append(word)
    return file, overrides, rest


def _default_mapping(config_type: Any, name: str) -> dict[str, Any]:
    """Return a copy of a setting's default where that is a mapping."""
    (field,) = (f for f in dataclasses.fields(config_type) if f.name == name)
    default = field.default_factory() if callable(field.default_factory) else field.default
    return dict(default) if isinstance(default, dict) else {}


def _override(values: dict[str, Any], path: list[str], value: Any, default: dict[str, Any]) -> None:
    """Change one key; the others stay as the file or else the default has them."""
    target = values
    if values.get(path[0]) is None:
        values[path[0]] = default
    for key in path[:-1]:
        inner = target.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--{'.'.join(path)}: {key!r} is not a mapping but {inner!r}")
        target[key] = target = dict(inner)
    target[path[-1]] = value
