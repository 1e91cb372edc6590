"""An event loop in a thread of its own, for callers that are not coroutines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["LoopThread"]

_T = TypeVar("_T")
_CLEANING = 15.0
"""Seconds that a cancelled coroutine has, for instance to resume a server."""


class LoopThread:
    """Runs coroutines in a thread that lives as long as the process."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, name="servers", daemon=True)
        thread.start()

    def submit(self, coroutine: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Start a coroutine."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Wait for a coroutine. If the caller is interrupted, the coroutine is cancelled and may clean up."""
        ended = threading.Event()

        async def whole() -> _T:
            try:
                return await coroutine
            finally:
                ended.set()

        future = self.submit(whole())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            ended.wait(_CLEANING)
            raise
