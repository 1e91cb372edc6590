"""How the models of a stage are loaded, beside their names: one choice for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

from rlprm.runtime.tuning import LoadingConfig

__all__ = ["LoadingOptions", "loading_options", "options_of_loading", "with_loading_options"]

_C = TypeVar("_C", bound=LoadingConfig)
_T = TypeVar("_T")


@dataclass(frozen=True)
class LoadingOptions:
    """Options of every ``from_pretrained`` of a stage."""

    attn_implementation: str | None = None
    """For instance ``sdpa``, ``eager`` or ``flash_attention_2``; the library's choice if None."""
    trust_remote_code: bool = False
    """Whether Python code that lies beside the weights may run."""


_DEFAULT = LoadingOptions()
_CURRENT: ContextVar[LoadingOptions] = ContextVar("loading_options", default=_DEFAULT)


@contextmanager
def loading_options(options: LoadingOptions) -> Iterator[None]:
    """Load all models of a block with these options."""
    token = _CURRENT.set(options)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def options_of_loading(*, weights: bool) -> dict[str, Any]:
    """Return the keyword arguments of ``from_pretrained``.

    ``trust_remote_code`` is always among them. If the argument is left out, the library asks on the terminal,
    and a job without one waits.

    Args:
        weights: whether a model is loaded, and not a configuration or a tokenizer alone.
    """
    options = _CURRENT.get()
    found: dict[str, Any] = {"trust_remote_code": options.trust_remote_code}
    if weights and options.attn_implementation is not None:
        found["attn_implementation"] = options.attn_implementation
    return found


def with_loading_options(run: Callable[[_C], _T]) -> Callable[[_C], _T]:
    """Let a stage load its models with the options of its settings."""

    @wraps(run)
    def wrapped(config: _C) -> _T:
        options = LoadingOptions(config.attn_implementation, config.trust_remote_code)
        with loading_options(options):
            return run(config)

    return wrapped
