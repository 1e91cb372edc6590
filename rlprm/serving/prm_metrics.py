"""Counters of a PRM server, as text in Prometheus' format."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator

__all__ = ["Metrics"]

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histogram of a request's seconds."""


class Metrics:
    """What a PRM server counts. Any number of threads may use it at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[int] = Counter()
        self._buckets = [0] * (len(_BOUNDS) + 1)
        self._seconds = 0.0
        self._batches = self._trajectories = self._tokens = 0
        self._scoring = 0.0

    def add_request(self, status: int, seconds: float) -> None:
        """Count an answered request."""
        with self._lock:
            self._requests[status] += 1
            self._buckets[bisect_left(_BOUNDS, seconds)] += 1
            self._seconds += seconds

    def add_batch(self, trajectories: int, tokens: int, seconds: float) -> None:
        """Count what was scored together: trajectories, the tokens that the model processed, the time."""
        with self._lock:
            self._batches += 1
            self._trajectories += trajectories
            self._tokens += tokens
            self._scoring += seconds

    def text(self, *, queue_length: int) -> str:
        """Return all counters.

        Args:
            queue_length: requests that wait to be scored.
        """
        with self._lock:
            return "\n".join(self._lines(queue_length)) + "\n"

    def _lines(self, queue_length: int) -> Iterator[str]:
        name = "rlprm_prm_requests_total"
        yield from _head(name, "counter", "Requests by HTTP status; 499: the client left before the answer.")
        yield from (f'{name}{{status="{s}"}} {count}' for s, count in sorted(self._requests.items()))
        name = "rlprm_prm_request_seconds"
        yield from _head(name, "histogram", "Seconds from a request's head to its answer.")
        for i, bound in enumerate(_BOUNDS):
            yield f'{name}_bucket{{le="{bound:g}"}} {sum(self._buckets[: i + 1])}'
        yield f'{name}_bucket{{le="+Inf"}} {sum(self._buckets)}'
        yield f"{name}_sum {self._seconds:.6f}"
        yield f"{name}_count {sum(self._buckets)}"
        for short, kind, value, what in (
            ("queue_length", "gauge", queue_length, "Requests that wait to be scored."),
            ("batches_total", "counter", self._batches, "Batches that were scored."),
            ("trajectories_total", "counter", self._trajectories, "Trajectories that were scored."),
            ("tokens_total", "counter", self._tokens, "Tokens that the model processed."),
            ("scoring_seconds_total", "counter", f"{self._scoring:.6f}", "Seconds of scoring."),
        ):
            yield from _head(f"rlprm_prm_{short}", kind, what)
            yield f"rlprm_prm_{short} {value}"


def _head(name: str, kind: str, what: str) -> Iterator[str]:
    yield f"# HELP {name} {what}"
    yield f"# TYPE {name} {kind}"
