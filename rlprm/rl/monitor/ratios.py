"""The tokens' ratios of an update, which show a few tokens that run away where means do not."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["RatioReport"]


class RatioReport:
    """Collects the ratios π / π_old of all tokens of an update, or of all messages.

    Args:
        low: how far a ratio may fall below 1.
        high: how far it may rise above 1.
    """

    def __init__(self, *, low: float, high: float) -> None:
        self.low, self.high = low, high
        self._parts: list[Tensor] = []

    def add(
        self,
        logprobs_N: Tensor,
        old_logprobs_N: Tensor,
        advantages_N: Tensor,
        messages_N: Tensor | None = None,
    ) -> None:
        """Add the tokens of a micro-batch; nothing has a gradient here.

        Args:
            logprobs_N: log π of each token.
            old_logprobs_N: log π_old.
            advantages_N: of the tokens.
            messages_N: the message of each token, if a ratio is the geometric mean over a message's tokens.
        """
        if not len(logprobs_N):
            return
        log_ratio_N = (logprobs_N.detach() - old_logprobs_N.detach()).float()
        if messages_N is not None:
            sums_M = log_ratio_N.new_zeros(int(messages_N.max()) + 1).index_add(0, messages_N, log_ratio_N)
            log_ratio_N = (sums_M / messages_N.bincount().clamp(min=1))[messages_N]
        ratio_N = log_ratio_N.exp()
        below = ((ratio_N < 1 - self.low) & (advantages_N < 0)).sum()
        above = ((ratio_N > 1 + self.high) & (advantages_N > 0)).sum()
        extremes = [log_ratio_N.min(), log_ratio_N.max()]
        self._parts.append(torch.stack([*extremes, below.float(), above.float()]).double())

    def __len__(self) -> int:
        return len(self._parts)

    def cut(self, count: int) -> None:
        """Forget all micro-batches but the first ones."""
        del self._parts[count:]

    def own(self, rank: int, count: int) -> Tensor:
        """Return (count, 5), float64: the numbers of this process in the row of its rank, 0 elsewhere.

        Summed over the processes, the table is what :func:`summary` takes.
        """
        table = torch.zeros(count, 5, dtype=torch.float64)
        # Steps that are not finite are left out of the update, and here.
        rows = [row for row in self._parts if bool(row.isfinite().all())]
        if rows:
            parts = torch.stack(rows).cpu()
            numbers = [parts[:, 0].min(), parts[:, 1].max(), parts[:, 2].sum(), parts[:, 3].sum()]
            table[rank] = torch.stack([*numbers, torch.ones_like(numbers[0])])
        return table

    @staticmethod
    def summary(table: Tensor, *, tokens: int) -> dict[str, float]:
        """Return the extremes of the ratios, and the shares of tokens that are clipped below and above.

        Args:
            table: the sum of :meth:`own` over the processes.
            tokens: number of tokens that were read, over all steps and processes.
        """
        rows = table[table[:, 4] > 0]
        if not len(rows):  # no process had a step that was finite
            return {"ratio_min": 1.0, "ratio_max": 1.0, "clip_low_fraction": 0.0, "clip_high_fraction": 0.0}
        return {
            "ratio_min": float(rows[:, 0].min().exp()),
            "ratio_max": float(rows[:, 1].max().exp()),
            "clip_low_fraction": float(rows[:, 2].sum()) / tokens,
            "clip_high_fraction": float(rows[:, 3].sum()) / tokens,
        }
