"""The record of a search: every candidate that was scored, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rlprm.types import StopReason


@dataclass(frozen=True)
class Node:
    """One candidate of a search: the actions it added to its parent.

    A strategy that branches (a beam) has nodes of one action. A strategy that samples episodes from the
    start (best-of-N) has nodes without a parent, one for each episode, with all its actions.
    """

    number: int
    """Place in the record of its task, from 0; parents come before their children."""
    parent: int | None
    """Number of the node whose state the first action was taken in; None for the start of the task."""
    round: int
    """Round of the search, from 1, in which the first action was taken."""
    depth: int
    """Actions from the start of the episode to the end of the node."""
    actions: tuple[str, ...]
    """Texts of the node's own actions, in order."""
    scores: tuple[float, ...]
    """Newest step scores of these actions; empty if the scorer did not score the candidate. If the episode
    failed, the scores of its last action may be missing."""
    rank: float | None
    """Rank score by which the candidate was last compared; None without a score, or if the episode failed."""
    samples: int = 1
    """Sampled messages that this candidate stands for; above 1, equal actions were merged into it."""
    kept: bool = False
    """Whether the search kept the candidate when it last selected: continued it, or returned or pooled it
    after its end."""
    stop: StopReason | None = None
    """Why the candidate ended; None if the search dropped it unfinished, or continued it in its children."""
    success: bool | None = None
    """Success of the finished candidate; None without an end."""
    visits: int | None = None
    """Simulations through the node, in a tree search."""
    executed: bool = True
    """Whether the environment carried the actions out; every environment step is in one executed node."""
    chosen: bool = False
    """Whether the candidate is the result of the search; one node of a record is."""

    def to_row(self) -> dict[str, Any]:
        """Return JSON values by name."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Node:
        """Return the node of a row that ``to_row`` made."""
        values = dict(row)
        stop = values["stop"]
        values |= {"actions": tuple(row["actions"]), "scores": tuple(row["scores"])}
        return cls(**values | {"stop": None if stop is None else StopReason(stop)})
