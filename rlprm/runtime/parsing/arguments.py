"""The words of a command line, and how text becomes a value of a declared type."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rlprm.errors import ConfigError
from rlprm.runtime.parsing.yaml_text import load_yaml

__all__ = ["Arguments", "Option", "converted", "plain_name", "read_arguments", "without_file"]

_NOTHING = frozenset({"none", "null"})
_TRUTH = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


@dataclass(frozen=True)
class Option:
    """``--name value ...`` as it was written."""

    path: tuple[str, ...]
    """Name of the setting, then keys of its mapping: ``--env_kwargs.levels`` has two parts."""
    words: tuple[str, ...]

    @property
    def shown(self) -> str:
        """The option as the user wrote it."""
        return "--" + ".".join(self.path)


@dataclass
class Arguments:
    """A command line, sorted."""

    file: str | None = None
    """Of ``--config``."""
    options: list[Option] = field(default_factory=list)
    unset: list[tuple[str, ...]] = field(default_factory=list)
    """Of ``--unset``: settings, or keys of their mappings, that the file must not set."""
    help: bool = False
    help_all: bool = False


def read_arguments(argv: Sequence[str]) -> Arguments:
    """Sort the words after a stage's name.

    Raises:
        ConfigError: for a word that belongs to no option, or an option without its value.
    """
    found = Arguments()
    words = list(argv)
    while words:
        word = words.pop(0)
        if word in ("-h", "--help"):
            found.help = True
            continue
        if not word.startswith("--") or word == "--":
            raise ConfigError(f"{word!r} belongs to no option; options are written --name value")
        name, has_value, value = word[2:].partition("=")
        values = [value] if has_value else []
        while not has_value and words and not words[0].startswith("--") and words[0] != "-h":
            values.append(words.pop(0))
        path = (plain_name(name.partition(".")[0]), *name.split(".")[1:])
        if path == ("help_all",):
            found.help_all = True
        elif path == ("config",):
            if len(values) != 1 or not values[0]:
                raise ConfigError("--config needs the path of a YAML file")
            found.file = values[0]
        elif path == ("unset",):
            if not values:
                raise ConfigError("--unset needs the name of a setting")
            found.unset += [(plain_name(v.partition(".")[0]), *v.split(".")[1:]) for v in values]
        else:
            found.options.append(Option(path, tuple(values)))
    return found


def without_file(argv: Sequence[str]) -> list[str]:
    """Return the words of a command line without ``--config FILE``."""
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--config":
            next(words, None)
        elif not word.startswith("--config="):
            rest.append(word)
    return rest


def plain_name(name: str) -> str:
    """Return the name of a setting; dashes are underscores."""
    return name.replace("-", "_")


def converted(value: Any, hint: Any) -> Any:
    """Turn text, or a list of texts, into a value of a type; what cannot be turned stays as it is."""
    if isinstance(value, list):
        (item,) = [args[0] for args in map(typing.get_args, _alternatives(hint)) if len(args) == 1] or [str]
        return [converted(entry, item) for entry in value]
    if not isinstance(value, str) or hint is str:
        return value
    for alternative in _alternatives(hint):
        result = _converted(value, alternative)
        if result is not _FAILED:
            return result
    return value


def _alternatives(hint: Any) -> list[Any]:
    """Return the types a value may have, the most particular first."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return sorted(typing.get_args(hint), key=lambda kind: _ORDER.get(kind, 4))
    return [hint]


_ORDER: dict[Any, int] = {type(None): 0, bool: 1, int: 2, float: 3, str: 5}
_FAILED = object()


def _converted(text: str, kind: Any) -> Any:
    if kind is type(None):
        return None if text.lower() in _NOTHING else _FAILED
    if kind is bool:
        return _TRUTH.get(text.lower(), _FAILED)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return _FAILED
    if kind is str:
        return text
    if kind is Any:
        return load_yaml(text, where=repr(text))
    origin = typing.get_origin(kind)
    if origin in (list, dict) and text[:1] in ("[", "{"):
        loaded = load_yaml(text, where=repr(text))
        return converted(loaded, kind) if isinstance(loaded, origin) else _FAILED
    return _FAILED
