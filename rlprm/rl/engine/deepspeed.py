"""The engine under DeepSpeed's ZeRO, which clips and steps in the last backward of each step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

from accelerate import Accelerator

from rlprm.models import zero
from rlprm.rl.actor_critic import ActorCritic
from rlprm.rl.config import RLConfig
from rlprm.rl.engine.accelerated import AccelerateEngine
from rlprm.rl.engine.base import GradientNorms
from rlprm.runtime.processes import collective

__all__ = ["DeepSpeedEngine"]


class DeepSpeedEngine(AccelerateEngine):
    """See :class:`rlprm.rl.engine.base.Engine`.

    Gradients of policy and critic are clipped together. DeepSpeed fixes at the start which weights have
    gradients: while only the critic learns, the policy keeps its gradients (0, or in a shared body those of
    the value) and has the learning rate 0.
    """

    CAN_SKIP: ClassVar[bool] = False
    _SAVE_FROZEN: ClassVar[dict[str, Any]] = {"exclude_frozen_parameters": True}
    _LOAD_FROZEN: ClassVar[dict[str, Any]] = {"load_module_strict": False}

    def __init__(self, model: ActorCritic, config: RLConfig, accelerator: Accelerator) -> None:
        # Micro-batches and steps are counted by the update, not by DeepSpeed.
        accelerator.state.deepspeed_plugin.deepspeed_config.update(
            train_micro_batch_size_per_gpu=1,
            gradient_accumulation_steps=1,
            gradient_clipping=config.max_grad_norm,
        )
        super().__init__(model, config, accelerator)

    def accumulating(self, *, is_last: bool) -> AbstractContextManager[None]:
        """See :class:`rlprm.rl.engine.base.Engine`."""
        self.accelerator.gradient_state._set_sync_gradients(is_last)
        return nullcontext()

    @collective
    def step(self) -> GradientNorms:
        """See :class:`rlprm.rl.engine.base.Engine`; the last backward has taken the step already."""
        return GradientNorms(float(self._wrapped.get_global_grad_norm() or 0.0))

    def skip(self) -> None:
        """See :class:`rlprm.rl.engine.base.Engine`.

        Raises:
            RuntimeError: always, since the step has been taken.
        """
        raise RuntimeError("DeepSpeed takes its step in the last backward")

    def _policy_states(self) -> Iterator[dict[str, Any]]:
        inner = self.optimizer.optimizer  # inside accelerate's wrapper
        plain = getattr(inner, "optimizer", inner)  # inside ZeRO's; stage 0 has none
        pairs = [(weight, group) for group in plain.param_groups for weight in group["params"]]
        if group_of := getattr(inner, "sub_group_to_group_id", None):
            # ZeRO-3 puts weights into their groups for the time of a step only.
            flat = inner.fp32_partitioned_groups_flat
            pairs = [(weight, plain.param_groups[group_of[number]]) for number, weight in enumerate(flat)]
        for weight, group in pairs:
            if group["of_policy"] and weight in plain.state:
                yield plain.state[weight]

    @contextmanager
    def _full_policy(self) -> Iterator[None]:
        """Gather the policy once under ZeRO-3; critic and reference stay split, since they do not act.

        DeepSpeed's hooks, which would split the weights again after every forward, are off inside: rollouts
        are ragged, and a collective inside them would wait forever.
        """
        parameters = list(self.model.policy.parameters())
        if not any(map(zero.is_split, parameters)):
            yield
            return
        from trl.models.utils import add_hooks, remove_hooks

        with zero.with_full_weights(parameters):
            remove_hooks(self._wrapped)
            try:
                yield
            finally:
                add_hooks(self._wrapped)
