"""The protocol of an engine: forward, backward, step, save."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlprm.rl.actor_critic import ActorCritic, Reading
from rlprm.runtime.processes import Processes, collective

__all__ = ["Engine", "GradientNorms"]


class GradientNorms(NamedTuple):
    """Norms of the gradients of one optimiser step, before clipping."""

    total: float
    policy: float | None = None
    """None if the engine does not know it."""
    critic: float | None = None
    """None without a critic, or if the engine does not know it."""


class Engine(Protocol):
    """Trains one :class:`ActorCritic`; the processes of a launch see the same batch and share its rows."""

    processes: Processes
    CAN_SKIP: ClassVar[bool]
    """Whether a step whose loss or gradient is not finite can be left out."""

    @property
    def model(self) -> ActorCritic:
        """The module itself, without the wrapper that spreads it over processes."""
        ...

    @property
    def in_half(self) -> bool:
        """Whether the policy computes in less than float32."""
        ...

    @property
    def device(self) -> torch.device:
        """Device that tensors go to before a forward pass."""
        ...

    def reading(self) -> AbstractContextManager[None]:
        """Evaluation mode without gradients."""
        ...

    def learning(self, *, factor: float, critic_only: bool) -> AbstractContextManager[None]:
        """Training mode, for the steps of one update.

        Args:
            factor: of the learning rates, from the schedule.
            critic_only: whether the policy (and a body that it shares with the critic) stays as it is. The
                policy's Adam state is reset at the end.
        """
        ...

    @collective
    def forward(
        self,
        token_ids_BL: Tensor,
        rows_N: Tensor,
        positions_N: Tensor,
        *,
        with_policy: bool = True,
        with_entropy: bool = False,
        with_reference: bool = False,
    ) -> Reading:
        """See ``ActorCritic.forward``."""
        ...

    def accumulating(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Forward and backward of one micro-batch of a step; only the last exchanges gradients."""
        ...

    @collective
    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss whose denominators count the rows of all processes."""
        ...

    def skip(self) -> None:
        """Drop the gradients of a step; see ``CAN_SKIP``."""
        ...

    @collective
    def step(self) -> GradientNorms:
        """Clip the gradients, take the optimiser step unless they are not finite, clear them."""
        ...

    @collective
    def reduce_sum(self, x: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes."""
        ...

    @collective
    def acting(self) -> AbstractContextManager[PreTrainedModel | PeftModel]:
        """Yield the policy with all its weights in every process; inside no process waits for another."""
        ...

    def offloaded(self) -> AbstractContextManager[None]:
        """Keep weights and optimiser states in host memory within a block, which must not use them.

        On a CPU nothing moves.
        """
        ...

    @collective
    def save_state(self, folder: Path) -> None:
        """Write trained weights, optimiser and random states of all processes."""
        ...

    @collective
    def load_state(self, folder: Path) -> None:
        """Read the files of ``save_state``."""
        ...

    @collective
    def save_policy(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Save the policy in a folder that stock transformers loads, adapters merged."""
        ...
