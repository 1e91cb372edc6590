"""One way to configure every stage: a YAML file (:mod:`rlprm.runtime.recipes`), then the command line.

    rlprm <stage> --config babyai/collect_tiny.yaml --seed 3 --env_kwargs.levels "[GoToObjDoor]"

The command line wins over the file. A setting that is a mapping (``*_kwargs``) is changed key by key with a
dotted name; the value is read as YAML. ``--unset env_kwargs.levels`` takes a key, or a setting, out of the
file. If the command line names another component than the file, the file's settings of that component are
dropped. Every value is checked against its declaration (``rlprm.runtime.settings``); an unknown name is
refused with the nearest known one.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

from rlprm.components import canonical
from rlprm.errors import ConfigError, refuse_unknown
from rlprm.runtime.parsing.arguments import (
    Arguments,
    Option,
    converted,
    plain_name,
    read_arguments,
    without_file,
)
from rlprm.runtime.parsing.help import help_text
from rlprm.runtime.parsing.library import accepted_names, library_settings
from rlprm.runtime.parsing.renames import RENAMED_SETTINGS, RENAMED_VALUES
from rlprm.runtime.parsing.yaml_text import load_yaml
from rlprm.runtime.recipes import resolve
from rlprm.runtime.settings import (
    Declaration,
    Settings,
    check,
    declarations,
    matches,
    own_settings,
    setting,
    wrong_type,
)

__all__ = ["Settings", "from_mapping", "own_settings", "parse", "setting"]

_T = TypeVar("_T")
log = logging.getLogger(__name__)
_PASSED_ON = "trainer_kwargs"
"""Setting that holds those of a library."""
_HANDED_ON = "refresh_kwargs"
"""Setting that holds settings of the stage train-prm."""


def parse(config_type: type[_T], argv: Sequence[str], *, prog: str = "rlprm") -> _T:
    """Build a stage's configuration from command-line arguments.

    Args:
        config_type: a dataclass.
        argv: arguments after the stage's name; ``--config FILE`` may be among them.
        prog: name shown by ``--help``.

    Raises:
        ConfigError: for an unknown setting, a wrong type, or an impossible value.
        ArtifactError: if the configuration file does not exist.
        SystemExit: after ``--help``.
    """
    given = read_arguments(argv)
    if given.help or given.help_all:
        print(help_text(config_type, prog=prog, with_library=given.help_all))
        raise SystemExit(0)
    reader = _Reader(config_type)
    recipe = resolve(
        given.file, [], without_file(argv), accepted_names(config_type) if given.file else set(),
        of_any_stage=getattr(config_type, "OF_ANY_STAGE", False),
    )  # fmt: skip
    reader.read_file(recipe.values, given.file or "")
    reader.read_command_line(read_arguments(recipe.rest))
    return cast(_T, reader.build())


def from_mapping(config_type: type[_T], settings: Mapping[str, Any], *, where: str) -> _T:
    """Build a stage's configuration from names and values, among them those of the trainer's library.

    Args:
        config_type: a dataclass.
        settings: by name.
        where: their origin, for messages.

    Raises:
        ConfigError: for an unknown setting, a wrong type, or an impossible value.
    """
    reader = _Reader(config_type)
    reader.read_file(settings, where)
    return cast(_T, reader.build())


class _Reader:
    """Collects the values of a configuration: first those of the file, then those of the command line."""

    def __init__(self, config_type: Any) -> None:
        self.type = config_type
        self.declared: Mapping[str, Declaration] = declarations(config_type)
        self.hints: Mapping[str, Any] = typing.get_type_hints(config_type)
        self.stage: str = getattr(config_type, "STAGE", "")
        self.values: dict[str, Any] = {}
        """Of settings of ours, by their names."""
        self.passed_on: dict[str, Any] = {}
        """Of settings of the library."""
        self.file = ""

    def build(self) -> Any:
        """Build the configuration; warn of settings that have no effect in it."""
        config = self.type(**self.checked())
        if not isinstance(config, Settings):
            check(config)
        elif self.values and os.environ.get("RANK", "0") == "0":
            _warn_of_unused(config, self.values)
        return config

    # --- the file ---------------------------------------------------------------------------------------

    def read_file(self, content: Mapping[str, Any], path: str) -> None:
        """Take the settings of a YAML file.

        Raises:
            ConfigError: for an unknown name, or a setting under two names.
        """
        self.file = path
        for name, value in self._under_current_names(content, path).items():
            self._set(name, value)

    # --- the command line -------------------------------------------------------------------------------

    def read_command_line(self, given: Arguments) -> None:
        """Apply the command line to the values of the file.

        Raises:
            ConfigError: for an unknown name, a setting under two names, or a value that is missing.
        """
        where = "the command line"
        names = self._current_names([*(option.path[0] for option in given.options)], where)
        options = [dataclasses.replace(o, path=(names[o.path[0]], *o.path[1:])) for o in given.options]
        unset = [(self._current_names([path[0]], where)[path[0]], *path[1:]) for path in given.unset]
        for path in unset:
            self._unset(path)
        for option in options:
            self._drop_settings_of_another_component(option)
        for option, written in zip(options, given.options, strict=True):
            self._apply(option, written.shown)

    def _apply(self, option: Option, shown: str) -> None:
        name, words = option.path[0], option.words
        hint = self._hint_of(name)
        if len(option.path) > 1:
            if len(words) != 1:
                raise _missing(shown) if not words else _stray(words[1])
            self._override(option.path, load_yaml(words[0], where=shown), shown)
        elif _takes_several(hint) and not (len(words) == 1 and words[0][:1] == "["):
            self._set(name, list(words))
        elif len(words) > 1:
            raise _stray(words[1])
        elif not words:
            if not matches(True, hint) or hint is Any:
                raise _missing(shown)
            self._set(name, True)
        else:
            self._set(name, words[0])

    def _override(self, path: Sequence[str], value: Any, shown: str) -> None:
        """Change one key; the others stay as the file or else the default has them."""
        name = path[0]
        target = self._mapping(name, shown)
        for key in path[1:-1]:
            inner = target.setdefault(key, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{shown}: {key!r} is not a mapping but {inner!r}")
            target[key] = target = dict(inner)
        target[path[-1]] = value

    def _unset(self, path: Sequence[str]) -> None:
        """Remove a setting, or a key of its mapping, from the values of the file."""
        shown = ".".join(path)
        if len(path) == 1:
            home, key = (self.values if path[0] in self.declared else self.passed_on), path[0]
        else:
            home, key = self._mapping(path[0], f"--unset {shown}"), path[-1]
            for inner in path[1:-1]:
                copy = home.get(inner)
                if not isinstance(copy, dict):
                    raise ConfigError(f"--unset {shown}: there is no {inner!r}")
                home[inner] = home = dict(copy)
        if key not in home:
            raise ConfigError(f"--unset {shown}: nothing sets it")
        del home[key]

    def _drop_settings_of_another_component(self, option: Option) -> None:
        """If another component is named than the file's, drop the file's settings of that one."""
        declared = self.declared.get(option.path[0])
        if declared is None or not declared.kwargs or len(option.path) > 1 or len(option.words) != 1:
            return
        before = self.values.get(option.path[0], self._default(option.path[0]))
        if canonical(option.words[0]) != canonical(str(before)) and self.values.get(declared.kwargs):
            dropped = self.values.pop(declared.kwargs)
            log.warning(
                "%s of %s are left out: %r belongs to %s %s, not to %s",
                declared.kwargs, self.file, dropped, option.path[0], before, option.words[0],
            )  # fmt: skip

    # --- both -------------------------------------------------------------------------------------------

    def checked(self) -> dict[str, Any]:
        """Return the values of all settings that were given, of their declared types.

        Raises:
            ConfigError: for a value of another type.
        """
        for name, hint in self.hints.items():
            if name in self.values:
                self.values[name] = self._current_value(name, self.values[name])
                self._check_type(name, self.values[name], hint)
        for name, value in self.passed_on.items():
            hint = library_settings(self.type.LIBRARY)[name].hint
            self._check_type(name, value, hint | None if hint is not Any else hint)
        if self.passed_on:
            self.values[_PASSED_ON] = {**self.values.get(_PASSED_ON, {}), **self.passed_on}
        if self.stage == "train-rl" and isinstance(self.values.get(_HANDED_ON), dict):
            self.values[_HANDED_ON] = self._current_handed_on(self.values[_HANDED_ON])
        return self.values

    def _check_type(self, name: str, value: Any, hint: Any) -> None:
        if not matches(value, hint):
            raise wrong_type(name, hint, value)

    def _set(self, name: str, value: Any) -> None:
        hint = self._hint_of(name)
        value = converted(value, hint)
        declared = self.declared.get(name)
        if declared is None:
            self.passed_on[name] = value
            return
        if value is False and "no" in declared.choices:  # what YAML makes of no
            value = "no"
        self.values[name] = value

    def _hint_of(self, name: str) -> Any:
        if name in self.declared:
            return self.hints[name]
        return library_settings(self.type.LIBRARY)[name].hint

    def _default(self, name: str) -> Any:
        (field,) = (f for f in dataclasses.fields(self.type) if f.name == name)
        return field.default_factory() if callable(field.default_factory) else field.default

    def _mapping(self, name: str, shown: str) -> dict[str, Any]:
        """Return the mapping of a setting, to be changed: a copy of the file's, or else of the default."""
        if name not in self.declared:
            raise ConfigError(f"{shown}: {name!r} is not a mapping")
        held = self.values.get(name)
        if held is None:
            default = self._default(name)
            held = dict(default) if isinstance(default, dict) else {}
        if not isinstance(held, dict):
            raise ConfigError(f"{shown}: {name!r} is not a mapping but {held!r}")
        self.values[name] = dict(held)
        return cast("dict[str, Any]", self.values[name])

    # --- names that have changed ------------------------------------------------------------------------

    def _under_current_names(self, content: Mapping[str, Any], where: str) -> dict[str, Any]:
        names = self._current_names(content, where)
        return {names[name]: value for name, value in content.items()}

    def _current_names(self, names: Iterable[str], where: str) -> dict[str, str]:
        """Return the current name of each; refuse unknown names and pairs of an old and its new name."""
        names = list(dict.fromkeys(names))
        renamed = current_names(self.stage, names, where)
        known = set(self.declared)
        if not set(renamed.values()) <= known:
            known |= set(library_settings(getattr(self.type, "LIBRARY", "")))
        refuse_unknown(set(renamed.values()), known, where)
        return renamed

    def _current_value(self, name: str, value: Any) -> Any:
        now = RENAMED_VALUES.get(self.stage, {}).get(name, {})
        written = str(value)  # a switch of before may be a choice now
        if written in now:
            log.warning("%s: %r is called %r now; the old name goes with the next release",
                        name, written, now[written])  # fmt: skip
            return now[written]
        return value

    def _current_handed_on(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Translate the settings of another stage, each of which may be followed by a key of its mapping."""
        stage, found = "train-prm", dict[str, Any]()
        firsts = {name: plain_name(str(name).partition(".")[0]) for name in settings}
        names = current_names(stage, firsts.values(), _HANDED_ON)
        for name, value in settings.items():
            current = names[firsts[name]]
            now = RENAMED_VALUES.get(stage, {}).get(current, {})
            _, dot, rest = str(name).partition(".")
            found[current + dot + rest] = now.get(value, value) if isinstance(value, str) else value
        return found


def current_names(stage: str, names: Iterable[str], where: str) -> dict[str, str]:
    """Return the current name of each setting of a stage; a warning names those that have changed.

    Raises:
        ConfigError: for a setting under its old and its new name.
    """
    names, renamed = list(dict.fromkeys(names)), RENAMED_SETTINGS.get(stage, {})
    found = {name: renamed.get(name, name) for name in names}
    for old, new in found.items():
        if old != new:
            if new in names:
                raise ConfigError(f"{new}: given twice in {where}, also under its old name {old}")
            log.warning("%s is called %s now; the old name goes with the next release", old, new)
    return found


def _warn_of_unused(config: Settings, given: Mapping[str, Any]) -> None:
    """Name in one line the settings that were changed from their defaults and have no effect."""
    fields = {field.name: field for field in dataclasses.fields(config)}
    found = []
    for name, reason in config.unused().items():
        if name in given:
            field = fields[name]
            default = field.default_factory() if callable(field.default_factory) else field.default
            if given[name] != default:
                found.append(f"{name} ({reason})")
    if found:
        log.warning("without effect: %s", ", ".join(found))


def _takes_several(hint: Any) -> bool:
    kinds = (hint, *typing.get_args(hint)) if typing.get_origin(hint) is not list else (hint,)
    return any(typing.get_origin(kind) is list for kind in kinds)


def _missing(shown: str) -> ConfigError:
    return ConfigError(f"{shown} needs a value")


def _stray(word: str) -> ConfigError:
    return ConfigError(f"{word!r} belongs to no option; options are written --name value")
