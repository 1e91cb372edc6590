"""Checks of the settings of an endpoint; without model libraries, so that mistakes are answered at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from rlprm.errors import ConfigError

__all__ = ["KEY", "check_address", "check_key", "check_kwargs"]

KEY = "OPENAI_API_KEY"
"""Environment variable of the key."""
_OWN = (
    "model", "messages", "temperature", "max_tokens", "max_completion_tokens", "seed", "n", "stream",
    "stream_options", "tools", "functions",
)  # fmt: skip
"""Parameters of a request that this package sets, or whose answers it does not read."""
_SECRET = ("key", "authorization", "token", "password", "secret")


def check_address(address: str) -> None:
    """Refuse what is no base address, or one that may hold a key.

    Raises:
        ConfigError: without the address if that may hold a key.
    """
    parts = urlsplit(address)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "endpoint: got an address with a user, password, query or fragment, allowed: an address such as "
            f"https://host/v1; the key is read from the environment variable {KEY}"
        )
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(f"endpoint: got {address!r}, allowed: a base address such as https://host/v1")
    if parts.path.rstrip("/").endswith("/chat/completions"):
        raise ConfigError(f"endpoint: got {address!r}, allowed: the address without /chat/completions")


def check_kwargs(kwargs: Mapping[str, Any]) -> None:
    """Refuse parameters that this package sets itself, and those that look like a key, which is a secret.

    Raises:
        ConfigError: naming the parameter.
    """
    for name in kwargs:
        if name in _OWN:
            raise ConfigError(
                f"endpoint_kwargs: got {name}, which rlprm sets itself, allowed: other parameters of the "
                "endpoint, such as top_p or reasoning_effort"
            )
        if any(name.lower().replace("-", "_").endswith(word) for word in _SECRET):
            raise ConfigError(
                f"endpoint_kwargs: got {name}, but parameters are recorded; the key is read from the "
                f"environment variable {KEY}"
            )


def check_key(key: str | None) -> str | None:
    """Return a key without the white space around it; None if there is none.

    Raises:
        ConfigError: for a text that no header can hold. The text is not shown.
    """
    found = (key or "").strip()
    if not (found.isascii() and found.isprintable() and " " not in found):
        raise ConfigError(f"{KEY}: got a text that is no key, allowed: printable ASCII without spaces")
    return found or None
