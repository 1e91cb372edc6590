"""What ``--help`` shows: a stage's settings in groups, with defaults and what is allowed, in 80 columns."""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

from rlprm.runtime.parsing.library import library_settings
from rlprm.runtime.settings import allowed_values, components_of, declaration_of

__all__ = ["default_of", "grouped_fields", "help_text", "shown_value"]

_WIDTH = 80
_NAME = 28
"""Columns of names and defaults."""


def help_text(config_type: Any, *, prog: str, with_library: bool = False) -> str:
    """Return the help of a stage.

    Args:
        config_type: a dataclass of settings.
        prog: the command, for instance ``"rlprm collect"``.
        with_library: show the settings of the trainer's library, too.
    """
    library = getattr(config_type, "LIBRARY", "")
    lines = [
        f"usage: {prog} [--config FILE.yaml] [--name value ...]",
        "",
        *textwrap.wrap(
            "The command line wins over the file. Names stand with their defaults. "
            "--name.key value changes one key of a mapping, --unset name takes a setting "
            "out of the file. --root DIR moves the folders of a recipe that has a root. "
            "--overwrite removes what an earlier run wrote into output_dir. "
            "--accelerate_config zero2 launches several processes of a stage that trains.",
            _WIDTH,
        ),
    ]
    for group, fields in grouped_fields(config_type).items():
        lines += ["", f"{group}:"]
        for field, hint in fields:
            lines += _entry(f"--{field.name} {shown_value(default_of(field))}", _description(field, hint))
    if library and not with_library:
        lines += ["", f"--help-all: also the other settings of {library}."]
    if library and with_library:
        lines += ["", f"Passed on to {library}:"]
        own = {field.name for field in dataclasses.fields(config_type)}
        for name, found in sorted(library_settings(library).items()):
            if name not in own:
                lines += _entry(f"--{name} {found.default}", found.help.partition(". ")[0].rstrip("."))
    return "\n".join(lines)


def grouped_fields(config_type: Any) -> dict[str, list[tuple[dataclasses.Field[Any], Any]]]:
    """Return the settings (with their types) by group: those of the stage itself stand first."""
    hints = typing.get_type_hints(config_type)
    groups: dict[str, list[tuple[dataclasses.Field[Any], Any]]] = {}
    own = list(inspect.get_annotations(config_type))
    fields = [field for field in dataclasses.fields(config_type) if field.init]
    for field in fields:
        groups.setdefault(declaration_of(field).group, []).append((field, hints[field.name]))
    is_inherited = {name: any(f.name not in own for f, _ in group) for name, group in groups.items()}
    return dict(sorted(groups.items(), key=lambda item: is_inherited[item[0]]))


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return a setting's value if nothing is given."""
    return field.default_factory() if callable(field.default_factory) else field.default


def shown_value(value: Any) -> str:
    """Return a value as it would be written on the command line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, str):
        return value or "''"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _description(field: dataclasses.Field[Any], hint: Any) -> str:
    declared = declaration_of(field)
    allowed = allowed_values(declared, hint).removesuffix(", or unset")
    if declared.family:
        allowed = ", ".join(components_of(declared.family)) + ", or a .py file of your own"
    elif declared.choices and all(choice in declared.help for choice in declared.choices):
        allowed = ""  # its sentence explains each of them
    required = "Required. " if declared.required and not default_of(field) else ""
    text = declared.help
    if declared.family:
        text = text.partition(":")[0] + "."
    return required + text + (f" [{allowed}]" if allowed and allowed != "a finite number" else "")


def _entry(name: str, text: str) -> Iterator[str]:
    """Yield the lines of one setting."""
    lines = textwrap.wrap(text, _WIDTH - _NAME - 3) or [""]
    if len(name) > _NAME - 2:
        yield f"  {name}"[:_WIDTH]
    else:
        yield f"  {name:<{_NAME}} {lines.pop(0)}".rstrip()
    yield from (f"  {'':<{_NAME}} {line}" for line in lines)
