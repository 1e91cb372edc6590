"""What a user sets about a chat template, and where the settings are kept: in the tokenizer itself.

A tokenizer that is saved takes its settings along (``tokenizer_config.json``), so every later stage that
loads the folder renders as the stage that saved it. A stage whose own settings differ is refused. Stored
with the tokenizer, settings also cannot be lost between a policy, a reward model and a scorer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from rlprm.errors import ConfigError, MismatchError

__all__ = ["CLOCK_STOPS_AT", "ChatSettings", "apply_settings", "shipped_templates", "stored_settings"]

CLOCK_STOPS_AT = "2024-07-26"
"""The date of templates that write today's: the one that Llama 3.x's own templates fall back to."""

_KEY = "rlprm_chat"
_FOLDER = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class ChatSettings:
    """Settings of a chat template; what is empty is not set.

    Attributes:
        template: name of a template shipped here, or path of a file.
        kwargs: variables that the template reads, such as ``enable_thinking``.
        history: ``"strict"``, or not set for ``append``.
        date: of templates that write today's date, as ``YYYY-MM-DD``.
    """

    template: str = ""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    history: str = ""
    date: str = ""


def shipped_templates() -> list[str]:
    """Return the names of the templates shipped here."""
    return sorted(path.stem for path in _FOLDER.glob("*.jinja"))


def stored_settings(tokenizer: PreTrainedTokenizerBase) -> ChatSettings:
    """Return the settings that a tokenizer carries."""
    return ChatSettings(**tokenizer.init_kwargs.get(_KEY, {}))


def apply_settings(
    tokenizer: PreTrainedTokenizerBase, wanted: ChatSettings, *, replace: bool = False
) -> PreTrainedTokenizerBase:
    """Give a tokenizer these settings; what is not set keeps what the tokenizer carries.

    Args:
        tokenizer: is changed.
        wanted: the settings of a stage.
        replace: allow other settings than the tokenizer carries. Only a stage that trains a policy to write
            in another template may do so.

    Raises:
        ConfigError: if there is no such template.
        MismatchError: naming a setting that differs from what the tokenizer carries.
    """
    given = {name: value for name, value in vars(wanted).items() if value}
    if not given:
        return tokenizer
    had = {name: value for name, value in vars(stored_settings(tokenizer)).items() if value}
    text = _read(wanted.template) if wanted.template else None
    for name in sorted(set(given) & set(had)) if not replace else ():
        same = (
            text == tokenizer.chat_template if name == "template" else _json(given[name]) == _json(had[name])
        )
        if not same:
            raise MismatchError(
                f"{_SETTING[name]}: got {given[name]!r}, but {tokenizer.name_or_path!r} was saved with "
                f"{had[name]!r}; leave the setting out to use that"
            )
    if text is not None:
        tokenizer.chat_template = text
    tokenizer.init_kwargs[_KEY] = {**had, **json.loads(_json(given))}
    return tokenizer


_SETTING = {
    "template": "chat_template",
    "kwargs": "chat_template_kwargs",
    "history": "history",
    "date": "chat_date",
}


def _json(value: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True)
    except TypeError as error:
        raise ConfigError(f"chat_template_kwargs: got {value!r}, allowed: values of YAML") from error


def _read(template: str) -> str:
    names = shipped_templates()
    path = _FOLDER / f"{template}.jinja" if template in names else Path(template)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"chat_template: got {template!r}, allowed: the path of a text file, or one of {', '.join(names)}"
        ) from error
