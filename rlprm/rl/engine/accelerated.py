"""What the engines share: optimiser groups, forward, backward, states and weights through accelerate."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from peft import PeftModel
from torch import Tensor, nn
from torch.optim import AdamW
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlprm.models import zero
from rlprm.models.host_memory import in_host_memory, tensors_of
from rlprm.models.loading import load_causal_lm
from rlprm.models.lora import FULL_PRECISION, save_full_model
from rlprm.rl.actor_critic import ActorCritic, Reading
from rlprm.rl.config import RLConfig
from rlprm.runtime.processes import Processes, collective

__all__ = ["AccelerateEngine"]

_BETAS = (0.9, 0.999)


class AccelerateEngine:
    """Base of the engines; see :class:`rlprm.rl.engine.base.Engine`.

    Args:
        model: with all weights; it is spread over the processes here.
        config: of the run.
        accelerator: of this process.
    """

    _SAVE_FROZEN: ClassVar[dict[str, Any]] = {}
    """Options of ``save_state`` for a model with frozen weights."""
    _LOAD_FROZEN: ClassVar[dict[str, Any]] = {}
    """Options of ``load_state`` for a model with frozen weights."""

    def __init__(self, model: ActorCritic, config: RLConfig, accelerator: Accelerator) -> None:
        self.config, self.accelerator = config, accelerator
        self.processes = Processes(accelerator.process_index, accelerator.num_processes)
        groups = [_group(model.policy_parameters(), config, factor=1.0, of_policy=True)]
        if critic := model.critic_parameters():
            factor = config.critic_learning_rate_factor
            groups.append(_group(critic, config, factor=factor, of_policy=False))
        optimizer = AdamW(groups, betas=_BETAS, weight_decay=config.weight_decay)
        self._wrapped, self.optimizer = accelerator.prepare(model, optimizer)

    @property
    def model(self) -> ActorCritic:
        """See :class:`Engine`."""
        unwrapped: ActorCritic = self.accelerator.unwrap_model(self._wrapped)
        return unwrapped

    @property
    def in_half(self) -> bool:
        """See :class:`Engine`."""
        weights = next(iter(self.model.policy.parameters()))  # adapters are float32, the first weight is not
        return bool(self.accelerator.mixed_precision != "no" or weights.dtype.itemsize < 4)

    @property
    def device(self) -> torch.device:
        """See :class:`Engine`."""
        device: torch.device = self.accelerator.device
        return device

    # --- modes ------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[None]:
        """See :class:`Engine`."""
        self._wrapped.eval()
        with torch.no_grad():
            yield

    @contextmanager
    def learning(self, *, factor: float, critic_only: bool) -> Iterator[None]:
        """See :class:`Engine`."""
        for group in self.optimizer.param_groups:
            is_frozen = critic_only and group["of_policy"]
            group["lr"] = 0.0 if is_frozen else self.config.step_size * group["factor"] * factor
        self._wrapped.train()
        if not critic_only:
            yield
            return
        with self._frozen_policy():
            yield
        # Adam's bias correction would count the steps without a gradient, too: the policy's first real steps
        # would be up to three times too long.
        for state in self._policy_states():
            for name, entry in state.items():
                if isinstance(entry, Tensor):
                    entry.zero_()
                elif name == "step":  # DeepSpeed's Adam for CPUs counts in a plain number
                    state[name] = 0

    def _frozen_policy(self) -> AbstractContextManager[None]:
        """Keep gradients from the policy, as far as the engine can; its learning rate is 0 anyway."""
        return nullcontext()

    def _policy_states(self) -> Iterator[dict[str, Any]]:
        """Yield the optimiser's state of each weight of the policy, or of this process's share of it."""
        inner = self.optimizer.optimizer  # inside accelerate's wrapper
        for group in inner.param_groups:
            if group["of_policy"]:
                yield from (inner.state[weight] for weight in group["params"] if weight in inner.state)

    @collective
    @contextmanager
    def acting(self) -> Iterator[PreTrainedModel | PeftModel]:
        """See :class:`Engine`."""
        self._wrapped.eval()
        with torch.no_grad(), self._full_policy(), self.accelerator.autocast():
            yield self.model.policy

    def _full_policy(self) -> AbstractContextManager[None]:
        """Have all weights of the policy in every process."""
        return nullcontext()

    @contextmanager
    def offloaded(self) -> Iterator[None]:
        """See :class:`Engine`."""
        with in_host_memory([*tensors_of(self.model), *self._optimizer_tensors()]):
            yield

    def _optimizer_tensors(self) -> Iterator[Tensor]:
        """Yield what the optimiser holds in this process: weights, and the states of each."""
        inner = self.optimizer.optimizer  # inside accelerate's wrapper
        plain = getattr(inner, "optimizer", inner)  # inside ZeRO's
        yield from (weight for group in plain.param_groups for weight in group["params"])
        # ZeRO-3 puts its flat weights into the groups for the time of a step only.
        yield from getattr(inner, "fp32_partitioned_groups_flat", ())
        for state in plain.state.values():
            yield from (entry for entry in state.values() if isinstance(entry, Tensor))

    # --- one step ---------------------------------------------------------------------------------------

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
        """See :class:`Engine`."""
        tensors = (x.to(self.device) for x in (token_ids_BL, rows_N, positions_N))
        reading: Reading = self._module()(
            *tensors, with_policy=with_policy, with_entropy=with_entropy, with_reference=with_reference
        )
        return reading

    def _module(self) -> nn.Module:
        """Return the module whose forward is called."""
        module: nn.Module = self._wrapped
        return module

    @collective
    def backward(self, loss: Tensor) -> None:
        """See :class:`Engine`."""
        # Gradients are averaged over processes, but the denominators count the rows of all of them.
        self.accelerator.backward(loss * self.processes.count)

    @collective
    def reduce_sum(self, x: Tensor) -> Tensor:
        """See :class:`Engine`."""
        reduced: Tensor = self.accelerator.reduce(x, "sum")
        return reduced

    # --- saving -----------------------------------------------------------------------------------------

    @collective
    def save_state(self, folder: Path) -> None:
        """See :class:`Engine`."""
        # accelerate would warn at each checkpoint that tied weights are stored once.
        logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)
        hook = self.accelerator.register_save_state_pre_hook(_keep_trained)
        options = self._SAVE_FROZEN if self._has_frozen else {}
        self.accelerator.save_state(str(folder), safe_serialization=True, **options)
        hook.remove()

    @collective
    def load_state(self, folder: Path) -> None:
        """See :class:`Engine`; frozen weights are in no checkpoint and stay as they were loaded."""
        self.accelerator.load_state(str(folder), **(self._LOAD_FROZEN if self._has_frozen else {}))

    @property
    def _has_frozen(self) -> bool:
        return any(not parameter.requires_grad for parameter in self.model.parameters())

    @collective
    def save_policy(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """See :class:`Engine`."""
        policy = self.model.policy
        weights = zero.full_weights(policy, trained_only=isinstance(policy, PeftModel))
        if self.processes.is_main:
            save_full_model(
                policy, str(folder), weights, lambda: load_causal_lm(self.config.model, **FULL_PRECISION)
            )
            tokenizer.save_pretrained(folder)
        self.processes.wait()


def _keep_trained(models: list[nn.Module], weights: list[dict[str, Tensor]], _: str) -> None:
    """Leave frozen weights out of a checkpoint: those of a 3B model with adapters take 12 GB."""
    for model, state in zip(models, weights, strict=False):  # DeepSpeed writes the weights itself
        for name, parameter in model.named_parameters(remove_duplicate=False):
            if not parameter.requires_grad:
                state.pop(name, None)


def _group(
    parameters: list[nn.Parameter], config: RLConfig, *, factor: float, of_policy: bool
) -> dict[str, Any]:
    return {
        "params": parameters, "lr": factor * config.step_size, "factor": factor, "of_policy": of_policy,
    }  # fmt: skip
