"""Settings of the chat template, for every stage that loads a tokenizer to render messages."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlprm.errors import ConfigError
from rlprm.runtime.settings import Settings, setting

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ChatConfig"]

_GROUP = "Chat template"
_RESERVED = (
    "messages", "conversation", "tools", "documents", "chat_template", "add_generation_prompt",
    "continue_final_message", "tokenize", "padding", "truncation", "max_length", "return_tensors",
    "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs", "sanitize_control_tokens",
    "strftime_now",
)  # fmt: skip
"""What transformers' ``apply_chat_template`` takes itself, or this package sets."""


@dataclass
class ChatConfig(Settings):
    """What a stage sets about the chat template; unset is what the model's tokenizer carries.

    The settings are saved with the tokenizer of a policy or PRM. Later stages read them there, so they need
    not be repeated. A stage that repeats them with other values is refused.
    """

    chat_template: str = setting(
        "", "Chat template instead of the tokenizer's own: a file, or a name shipped here (chatml).",
        group=_GROUP, recorded="changed",
    )  # fmt: skip
    chat_template_kwargs: dict[str, Any] = setting(
        {}, "Variables that the chat template reads, e.g. chat_template_kwargs.enable_thinking.",
        group=_GROUP, recorded="changed",
    )  # fmt: skip
    history: str = setting(
        "append",
        "Earlier turns: append (as they were sampled) or strict (the same, and a template that "
        "would render them otherwise is refused).",
        choices=("append", "strict"), group=_GROUP, recorded="changed",
    )  # fmt: skip
    chat_date: str = setting(
        "", "Date for templates that write today's, as YYYY-MM-DD; 2024-07-26 if unset.",
        group=_GROUP, recorded="changed",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: naming the setting, what was received and what is allowed.
        """
        if self.history == "turns":
            raise ConfigError(
                "history: got turns, allowed: append, strict; turns (each turn a sample of its own prompt) "
                "needs trajectories of several token sequences, which do not exist yet"
            )
        super().__post_init__()
        for name in self.chat_template_kwargs:
            if name in _RESERVED:
                raise ConfigError(
                    f"chat_template_kwargs: got {name}, allowed: variables of the template's own"
                )
        if self.chat_date:
            try:
                datetime.date.fromisoformat(self.chat_date)
            except ValueError as error:
                raise ConfigError(f"chat_date: got {self.chat_date!r}, allowed: YYYY-MM-DD") from error

    def load_tokenizer(self, path: str, *, replace: bool = False) -> PreTrainedTokenizerBase:
        """Load a model's tokenizer with the settings of this stage.

        Args:
            path: folder or hub id of the model.
            replace: see :meth:`with_chat_settings`.

        Raises:
            ArtifactError: if the tokenizer cannot be loaded.
            ConfigError: if there is no such template.
            MismatchError: if the tokenizer was saved with other settings.
        """
        from rlprm.models.loading import load_tokenizer

        return self.with_chat_settings(load_tokenizer(path), replace=replace)

    def with_chat_settings(
        self, tokenizer: PreTrainedTokenizerBase, *, replace: bool = False
    ) -> PreTrainedTokenizerBase:
        """Give a tokenizer the settings of this stage.

        Args:
            tokenizer: is changed.
            replace: allow other settings than the tokenizer was saved with.
        """
        # Imported here, so that settings are parsed and checked without model libraries.
        from rlprm.data.rendering.settings import ChatSettings, apply_settings

        # A tokenizer that carries strict stays so: append gives the same ids.
        history = "" if self.history == "append" else self.history
        wanted = ChatSettings(self.chat_template, self.chat_template_kwargs, history, self.chat_date)
        return apply_settings(tokenizer, wanted, replace=replace)
