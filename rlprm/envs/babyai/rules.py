"""The rules by which an episode is played."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["ROUND_LIMIT", "Rules"]

ROUND_LIMIT = 20
"""Turns of an episode, AgentGym's number."""


class Rules(StrEnum):
    """Which game an episode is; docs/environments.md has a table of the differences.

    ``FIXED``: AgentGym's texts, actions and rewards, without the mistakes of its server.
    ``AGENTGYM``: what AgentGym's server does, mistakes included, to compare with published numbers.
    """

    FIXED = "fixed"
    AGENTGYM = "agentgym"
