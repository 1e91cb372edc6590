"""Addresses of servers: whether one is on this machine, and holding one to listen on."""

from __future__ import annotations

import ipaddress
import socket

from rlprm.errors import ConfigError

__all__ = ["bind", "is_loopback"]


def is_loopback(host: str) -> bool:
    """Whether a host can be reached from its own machine alone, as far as its text says."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that holds an address; it takes no connections yet.

    Raises:
        ConfigError: if the address is unknown or in use.
    """
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio sends small answers at once (no delay of 40 ms) only if the protocol is named.
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, UnicodeError) as error:
        if listener is not None:
            listener.close()
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(f"host, port: cannot listen on {host!r}, port {port}: {reason}") from error
    return listener
