"""The engine of one process, or of several that each hold all weights (DDP)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

from accelerate import Accelerator
from torch import nn

from rlprm.rl.actor_critic import ActorCritic
from rlprm.rl.config import RLConfig
from rlprm.rl.engine.accelerated import AccelerateEngine
from rlprm.rl.engine.base import GradientNorms
from rlprm.runtime.processes import collective

__all__ = ["PlainEngine"]


class PlainEngine(AccelerateEngine):
    """See :class:`rlprm.rl.engine.base.Engine`.

    Gradients are clipped to ``max_grad_norm``, those of the policy and those of a separate critic each by
    themselves: the size of the critic's errors must not decide how far the policy moves. A body that policy
    and critic share has the gradients of both, and everything is clipped together.
    """

    CAN_SKIP: ClassVar[bool] = True
    _LOAD_FROZEN: ClassVar[dict[str, Any]] = {"strict": False}

    def __init__(self, model: ActorCritic, config: RLConfig, accelerator: Accelerator) -> None:
        super().__init__(model, config, accelerator)
        self._policy_is_frozen = False

    @contextmanager
    def _frozen_policy(self) -> Iterator[None]:
        parameters = self.model.policy_parameters()
        self._policy_is_frozen = True
        for parameter in parameters:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            self._policy_is_frozen = False
            for parameter in parameters:
                parameter.requires_grad_(True)

    def _module(self) -> nn.Module:
        # DDP would wait for the gradients of the frozen policy.
        return self.model if self._policy_is_frozen else super()._module()

    def accumulating(self, *, is_last: bool) -> AbstractContextManager[None]:
        """See :class:`rlprm.rl.engine.base.Engine`."""
        self.accelerator.gradient_state._set_sync_gradients(is_last)
        if is_last or self.processes.count == 1:
            return nullcontext()
        without_sync: AbstractContextManager[None] = self.accelerator.no_sync(self._wrapped)
        return without_sync

    @collective
    def step(self) -> GradientNorms:
        """See :class:`rlprm.rl.engine.base.Engine`."""
        parts = [group["params"] for group in self.optimizer.param_groups]
        if self._policy_is_frozen and self.processes.count > 1:
            self._average(parts[1])
        limit = self.config.max_grad_norm or math.inf
        is_shared = self.model.value_head is not None
        clip = self.accelerator.clip_grad_norm_
        norms = [float(clip(part, math.inf if is_shared else limit)) for part in parts]
        total = math.hypot(*norms)
        if is_shared:
            clip([parameter for part in parts for parameter in part], limit)
        if math.isfinite(total):
            self.optimizer.step()
        self.optimizer.zero_grad()
        return GradientNorms(total, *norms)

    def skip(self) -> None:
        """See :class:`rlprm.rl.engine.base.Engine`."""
        self.optimizer.zero_grad()

    def _average(self, parameters: Sequence[nn.Parameter]) -> None:
        """Average the critic's gradients over the processes in DDP's place (see ``_module``)."""
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
