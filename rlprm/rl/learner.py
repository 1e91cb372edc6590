"""The model under training, its optimiser and the processes it is spread over: read, update, act, save.

What is computed here is the same for any number of processes: each knows the whole batch, takes its
share of the rows forward and back, and every denominator counts the rows of all.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from peft import PeftModel
from torch import Tensor, nn
from torch.optim import AdamW
from transformers import PreTrainedTokenizerBase

from rlprm.errors import TrainingError
from rlprm.models import zero
from rlprm.models.loading import load_causal_lm
from rlprm.models.lora import FULL_PRECISION, save_full_model
from rlprm.rl.actor_critic import ActorCritic, Reading
from rlprm.rl.batch import Batch, micro_batches
from rlprm.rl.config import RLConfig
from rlprm.rl.credit import Credit, OldLogprobs
from rlprm.rl.engine import reset_policy_state, settle_engine, with_full_weights
from rlprm.rl.losses import REPORTS, Denominators, Targets, total_loss
from rlprm.runtime.processes import Processes

__all__ = ["Learner", "UpdateStats"]

_BETAS = (0.9, 0.999)
_APPROX_KL = REPORTS.index("approx_kl")


@dataclass(frozen=True)
class UpdateStats:
    """Means over the optimiser steps of an update."""

    policy_loss: float
    value_loss: float
    entropy: float
    """Nats a token, of the policy as it was at each step."""
    approx_kl: float
    """KL(π_old || π), estimated, at the last step: how far the update has moved the policy."""
    clip_fraction: float
    value_clip_fraction: float
    kl_loss: float
    grad_norm: float
    """Of all weights that learn, before it is cut."""
    policy_grad_norm: float | None
    """Of the policy's; a body that is shared has the critic's gradient, too. None under DeepSpeed."""
    critic_grad_norm: float | None
    """Of the critic's; None without one, and under DeepSpeed."""
    steps: int
    stopped_early: bool
    """Whether ``target_kl`` ended it."""


class _Norms(NamedTuple):
    """Of the gradients of one optimiser step."""

    total: float
    policy: float | None = None
    critic: float | None = None


class Learner:
    """Trains one :class:`ActorCritic`.

    Args:
        model: in full; it is spread over the processes here.
        config: of the run.
        accelerator: of this process.
    """

    def __init__(self, model: ActorCritic, config: RLConfig, accelerator: Accelerator) -> None:
        self.config, self.accelerator = config, accelerator
        self.processes = Processes(accelerator.process_index, accelerator.num_processes)
        groups = [_group(model.policy_parameters(), config, factor=1.0, of_policy=True)]
        if critic := model.critic_parameters():
            factor = config.critic_learning_rate_factor
            groups.append(_group(critic, config, factor=factor, of_policy=False))
        optimizer = AdamW(groups, betas=_BETAS, weight_decay=config.weight_decay)
        settle_engine(accelerator, max_grad_norm=config.max_grad_norm)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self._policy_rests = False

    @property
    def whole(self) -> ActorCritic:
        """The module itself, without what spreads it over processes."""
        unwrapped: ActorCritic = self.accelerator.unwrap_model(self.model)
        return unwrapped

    @contextmanager
    def acting(self) -> Iterator[ActorCritic]:
        """Yield the module with all its weights in place, to act with: no process waits for others inside."""
        self.model.eval()
        with (
            torch.no_grad(),
            with_full_weights(self.model, self.accelerator) as whole,
            self.accelerator.autocast(),
        ):
            yield whole

    # --- reading ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, batch: Batch, *, with_reference: bool) -> OldLogprobs:
        """Read the policy (and critic, and reference) at every sampled token, before the first update."""
        self.model.eval()
        mine: list[tuple[list[int], list[Tensor]]] = []
        for rows in self._micro_batches(range(len(batch)), batch):
            reading, where = self._read(rows, batch, with_reference=with_reference)
            parts = [reading.logprobs, reading.values, reading.ref_logprobs]
            mine.append((rows, [self._scattered(part, where, batch, rows) for part in parts]))
        shape = batch.token_ids_BL.shape
        logprobs_BL, values_BL, ref_logprobs_BL = (torch.zeros(shape) for _ in range(3))
        for rows, (logprobs, values, ref_logprobs) in self._gathered(mine):
            width = logprobs.shape[1]
            logprobs_BL[rows, :width] = logprobs
            values_BL[rows, :width] = values
            ref_logprobs_BL[rows, :width] = ref_logprobs
        return OldLogprobs(logprobs_BL, values_BL, ref_logprobs_BL if with_reference else None)

    def _read(
        self, rows: Sequence[int], batch: Batch, *, with_entropy: bool = False, with_reference: bool = False
    ) -> tuple[Reading, Tensor]:
        """Take rows forward; where there are none, a token of row 0, whose reading counts for nothing.

        Returns:
            The reading, and (B', L') where the tokens stand that it is of.
        """
        chosen = list(rows) or [0]
        width = max(batch.widths_B[row] for row in chosen)
        where_BL = batch.layout.sampled[chosen, :width]
        rows_N, positions_N = where_BL.nonzero(as_tuple=True)
        if not rows:
            rows_N, positions_N = rows_N[:1], positions_N[:1]
        device = self.accelerator.device
        model = self.whole if self._policy_rests else self.model
        reading = model(
            batch.token_ids_BL[chosen, :width].to(device), rows_N.to(device), positions_N.to(device),
            with_entropy=with_entropy, with_reference=with_reference,
        )  # fmt: skip
        return reading, where_BL

    @staticmethod
    def _scattered(x_N: Tensor, where_BL: Tensor, batch: Batch, rows: Sequence[int]) -> Tensor:
        full_BL = torch.zeros(where_BL.shape)
        if rows:
            full_BL[where_BL] = x_N.float().cpu()
        return full_BL

    def _gathered(self, mine: list[Any]) -> list[Any]:
        """Return what all processes have computed, empty micro-batches left out."""
        every = self.processes.gather_all(mine)
        return [part for parts in every for part in parts if part[0]]

    def _micro_batches(self, rows: Sequence[int], batch: Batch) -> Iterator[list[int]]:
        return micro_batches(
            rows,
            batch.widths_B,
            token_budget=self.config.micro_batch_tokens,
            rank=self.processes.rank,
            processes=self.processes.count,
        )

    # --- updating ---------------------------------------------------------------------------------------

    def update(
        self,
        batch: Batch,
        credit: Credit,
        evaluated: OldLogprobs,
        *,
        seed: int,
        factor: float,
        critic_only: bool,
    ) -> UpdateStats:
        """Go over the batch: PPO's losses, in minibatches drawn by a seed.

        Gradients are cut to ``max_grad_norm``, those of the policy and those of a critic of its own each by
        themselves: the size of the critic's errors must not decide how far the policy goes. Under DeepSpeed,
        and with a shared critic, whose body has the gradients of both, they are cut together.

        Args:
            batch: the episodes.
            credit: of them.
            evaluated: the policy that acted.
            seed: of the order of the rows, the same in every process.
            factor: of the step sizes, from the schedule.
            critic_only: whether the policy is left as it is, a shared body with it. What Adam knows of it
                begins afterwards.

        Raises:
            TrainingError: for a loss or gradient that is not finite.
        """
        for group in self.optimizer.param_groups:
            rests = critic_only and group["of_policy"]
            group["lr"] = 0.0 if rests else self.config.learning_rate * group["factor"] * factor
        self.model.train()
        with self._without_policy() if critic_only else nullcontext():
            return self._pass_over(batch, credit, evaluated, np.random.default_rng(seed), critic_only)

    def _pass_over(
        self,
        batch: Batch,
        credit: Credit,
        evaluated: OldLogprobs,
        generator: np.random.Generator,
        critic_only: bool,
    ) -> UpdateStats:
        sums: list[Tensor] = []
        norms: list[_Norms] = []
        target = self.config.target_kl
        limit = math.inf if target is None or critic_only else target
        stopped = False
        for _ in range(self.config.ppo_epochs):
            order = generator.permutation(len(batch)).tolist()
            for part in np.array_split(order, min(self.config.minibatches, len(batch))):
                found, norm = self._step(part.tolist(), batch, credit, evaluated, critic_only)
                sums.append(found)
                norms.append(norm)
                if float(found[_APPROX_KL]) > limit:
                    stopped = True
                    break
            if stopped:
                break
        means = dict(zip(REPORTS, torch.stack(sums).mean(0).tolist(), strict=True))
        means["approx_kl"] = float(sums[-1][_APPROX_KL])
        return UpdateStats(
            **means,
            grad_norm=float(np.mean([norm.total for norm in norms])),
            policy_grad_norm=_mean([norm.policy for norm in norms]),
            critic_grad_norm=_mean([norm.critic for norm in norms]),
            steps=len(sums),
            stopped_early=stopped,
        )

    @contextmanager
    def _without_policy(self) -> Iterator[None]:
        """Let the critic learn alone.

        The policy has no gradient meanwhile, and nothing goes back through it. DeepSpeed has settled which
        weights have one: there it is 0, or in a shared body the value's, and the step size is 0.

        Afterwards Adam knows nothing of the policy. Its bias correction would count steps without a
        gradient, too, and the policy's first real ones would be up to three times as long as meant.
        """
        resting = [] if self._has_engine else self.whole.policy_parameters()
        self._policy_rests = bool(resting)
        for parameter in resting:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            self._policy_rests = False
            for parameter in resting:
                parameter.requires_grad_(True)
        reset_policy_state(self.optimizer)

    def _step(
        self, rows: list[int], batch: Batch, credit: Credit, evaluated: OldLogprobs, critic_only: bool
    ) -> tuple[Tensor, _Norms]:
        """Take one optimiser step over some rows; returns the reports, and the gradient's norms uncut."""
        of = Denominators.of_rows(batch, credit, rows)
        parts = list(self._micro_batches(rows, batch))
        sums = torch.zeros(len(REPORTS), device=self.accelerator.device)
        for number, part in enumerate(parts):
            is_last = number == len(parts) - 1
            with self._accumulating(is_last):
                loss, found = self._losses(part, batch, credit, evaluated, of, critic_only)
                sums += found
                # Gradients are averaged over processes, while the denominators count the rows of all.
                self.accelerator.backward(loss * self.processes.count)
        reduced: Tensor = self.accelerator.reduce(sums, "sum")
        self._refuse_non_finite(dict(zip(REPORTS, reduced.tolist(), strict=True)))
        norms = self._descend()
        self._refuse_non_finite({"grad_norm": norms.total})
        return reduced.cpu(), norms

    def _losses(
        self,
        rows: list[int],
        batch: Batch,
        credit: Credit,
        evaluated: OldLogprobs,
        of: Denominators,
        critic_only: bool,
    ) -> tuple[Tensor, Tensor]:
        device = self.accelerator.device
        reading, where_BL = self._read(rows, batch, with_entropy=True)
        if not rows:
            # Takes part in the collectives of the others, and adds nothing.
            nothing = 0.0 * (reading.logprobs.sum() + reading.values.sum())
            return nothing, torch.zeros(len(REPORTS), device=device)
        targets = Targets.select(batch, credit, evaluated, rows=rows, where=where_BL, device=device)
        return total_loss(reading, targets, self.config, of, critic_only=critic_only)

    def _accumulating(self, is_last: bool) -> AbstractContextManager[Any]:
        """Let gradients add up; only the last micro-batch of a step exchanges them."""
        self.accelerator.gradient_state._set_sync_gradients(is_last)
        if is_last or self.processes.count == 1 or self._has_engine:
            return nullcontext()
        without_sync: AbstractContextManager[Any] = self.accelerator.no_sync(self.model)
        return without_sync

    @property
    def _has_engine(self) -> bool:
        return self.accelerator.state.deepspeed_plugin is not None

    def _descend(self) -> _Norms:
        """Cut the gradients, take the step, forget the gradients."""
        if self._has_engine:  # has done so in the last backward
            return _Norms(float(self.model.get_global_grad_norm() or 0.0))
        parts = [group["params"] for group in self.optimizer.param_groups]
        if self._policy_rests and self.processes.count > 1:
            self._average(parts[1])
        limit = self.config.max_grad_norm or math.inf
        is_shared = self.whole.value_head is not None
        cut = self.accelerator.clip_grad_norm_
        norms = [float(cut(part, math.inf if is_shared else limit)) for part in parts]
        total = math.hypot(*norms)
        if is_shared:
            cut([parameter for part in parts for parameter in part], limit)
        if math.isfinite(total):
            self.optimizer.step()
        self.optimizer.zero_grad()
        return _Norms(total, *norms)

    def _average(self, parameters: Sequence[nn.Parameter]) -> None:
        """Average gradients over the processes; who else does so would wait for the policy's, too."""
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = self.accelerator.reduce(parameter.grad, "mean")

    def _refuse_non_finite(self, reports: Mapping[str, float]) -> None:
        for name, value in reports.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"{name} is {value}: lower learning_rate (now {self.config.learning_rate:g}); the last "
                    "checkpoint is from before"
                )

    # --- keeping ----------------------------------------------------------------------------------------

    def save_state(self, folder: Path) -> None:
        """Write weights, optimiser and random states of all processes; to be called in every process."""
        # That weights which go by two names are stored once would be said each time, as a warning.
        logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)
        hook = self.accelerator.register_save_state_pre_hook(_keep_trained)
        # DeepSpeed writes the weights itself, and has to be told.
        without_frozen = {"exclude_frozen_parameters": True} if self._has_engine and self._has_frozen else {}
        self.accelerator.save_state(str(folder), safe_serialization=True, **without_frozen)
        hook.remove()

    def load_state(self, folder: Path) -> None:
        """Read what ``save_state`` wrote; to be called in every process."""
        # Frozen weights are not in it: they are as they were loaded.
        strict = "load_module_strict" if self._has_engine else "strict"
        lenient = {strict: False} if self._has_frozen else {}
        self.accelerator.load_state(str(folder), **lenient)

    @property
    def _has_frozen(self) -> bool:
        return any(not parameter.requires_grad for parameter in self.whole.parameters())

    def save_policy(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Save the policy so that stock transformers loads it, adapters merged; in every process."""
        policy = self.whole.policy
        weights = zero.full_weights(policy, trained_only=isinstance(policy, PeftModel))
        if self.processes.is_main:
            save_full_model(
                policy, str(folder), weights, lambda: load_causal_lm(self.config.model, **FULL_PRECISION)
            )
            tokenizer.save_pretrained(folder)
        self.processes.wait()


def _mean(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return float(np.mean(known)) if known else None


def _keep_trained(models: list[nn.Module], weights: list[dict[str, Tensor]], _: str) -> None:
    """Leave frozen weights out of a checkpoint: those of a 3B model with adapters take 12 GB."""
    for model, state in zip(models, weights, strict=False):  # DeepSpeed keeps the weights itself
        for name, parameter in model.named_parameters(remove_duplicate=False):
            if not parameter.requires_grad:
                state.pop(name, None)


def _group(
    parameters: list[nn.Parameter], config: RLConfig, *, factor: float, of_policy: bool
) -> dict[str, Any]:
    return {
        "params": parameters, "lr": factor * config.learning_rate, "factor": factor, "of_policy": of_policy,
    }  # fmt: skip
