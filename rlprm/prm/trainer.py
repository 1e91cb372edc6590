"""The PRM trainer: labels from the current values, promise + progress loss, a global divisor.

The way of a batch: ``collate`` turns trajectories into token ids, positions of values, lengths of chains
and outcomes. One forward gives the values ``v_0 ... v_T`` of every row. ``rlprm.prm.label_table`` gives
their targets, made of the outcomes and, for TD-GAE, of the model's values. The loss compares values
with targets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from rlprm.data.batching import (
    LengthGroupedSampler,
    call_tokens,
    micro_batches,
    pad_right,
    sized_batches,
)
from rlprm.functional.activation import activate
from rlprm.functional.losses import AgentPRMLoss, agent_prm_loss
from rlprm.functional.metrics import auc_by_relative_position, calibration
from rlprm.labels.base import LabelBatch
from rlprm.models.heads import SCALAR
from rlprm.models.heads.reading import read_logits, read_sequences, stack_positions
from rlprm.models.heads.value_positions import ACTION, action_values, chain_positions
from rlprm.prm.config import PRMConfig
from rlprm.prm.label_table import LabelTable
from rlprm.prm.stored import StoredLabels
from rlprm.training import (
    LogSettings,
    StopOnNonFiniteLoss,
    check_world_size,
    refuse_non_finite,
    trainer_arguments,
)
from rlprm.types import Trajectory

_FILLER = -1
"""Index of a row without weight, which fills up the last batches of the data loader."""
_MICRO_BATCHES = "micro_batches"
"""Name of an update's micro-batches among the inputs of a training step."""


def prm_arguments(config: PRMConfig) -> TrainingArguments:
    """Return the trainer's arguments.

    Raises:
        ConfigError: for values the library refuses.
    """
    # The rows are indices of trajectories, whose column no model has.
    return trainer_arguments(TrainingArguments, config, config.model, remove_unused_columns=False)


class PRMTrainer(Trainer):
    """Trains a reward model on step labels.

    Args:
        model: token classification model with one label, or one with an lm head.
        config: settings of the stage.
        train: trajectories to learn from; all have at least one step.
        held_out: trajectories of other tasks, for evaluation.
        tokenizer: saved with the checkpoint.
        stored: labels of ``train`` and of ``held_out`` to learn from; made by the estimator where None.
        arguments: made of ``config`` by :func:`prm_arguments`, if the caller has them already.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        config: PRMConfig,
        train: Sequence[Trajectory],
        held_out: Sequence[Trajectory],
        tokenizer: PreTrainedTokenizerBase | None = None,
        stored: StoredLabels | None = None,
        arguments: TrainingArguments | None = None,
    ) -> None:
        args = prm_arguments(config) if arguments is None else arguments
        self.config = config
        self.train_trajectories = train
        self.held_out = held_out
        self.label_table = LabelTable(config, stored)
        self._order = _order(train, args)
        self._token_counts = [len(trajectory.token_ids) for trajectory in train]
        self._links = self._batch(train, tokens=False)["lengths"].tolist()
        self._shortest = self._token_counts.index(min(self._token_counts))
        super().__init__(
            model=model,
            args=args,
            data_collator=_indices,
            train_dataset=Dataset.from_dict(
                {"index": [*range(len(train)), *[_FILLER] * _fillers(len(train), args)]}
            ),
            eval_dataset=Dataset.from_dict({"index": list(range(len(held_out)))}),
            processing_class=tokenizer,
            callbacks=[_Labels(self), StopOnNonFiniteLoss(), LogSettings(config)],
        )
        check_world_size(args)
        # The loss divides by the global number of links itself; the trainer must not divide again.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True

    # --- data -------------------------------------------------------------------------------------------

    def _batch(self, trajectories: Sequence[Trajectory], *, tokens: bool = True) -> dict[str, Tensor]:
        return collate(
            trajectories, self.config.outcome, self.config.value_reads, self.config.head, tokens=tokens
        )

    def batch_of(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Return the padded rows of some trajectories to learn from; without indices, one filler row.

        Returns:
            See :func:`collate`; besides ``index`` (B,) and ``is_real`` (B,), False for the filler row.
        """
        chosen = list(indices) or [self._shortest]
        batch = self._batch([self.train_trajectories[index] for index in chosen])
        is_real = torch.full((len(chosen),), bool(indices))
        return {**batch, "index": torch.tensor(chosen), "is_real": is_real}

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        return self._order

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """Fetch the rows of one optimiser step, cut them into micro-batches, and count their links.

        A link is one predicted difference of two neighbouring values. The loss is divided by the links of
        all processes. The rows are dealt out to the processes by length. No micro-batch has more padded
        tokens than ``per_device_train_batch_size`` rows of the longest length.

        Returns:
            As many entries as the trainer asks for; the last entry holds all micro-batches of this process.
            Also the number of links.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        drawn: Tensor = self.accelerator.gather(torch.cat([batch["index"] for batch in batches]).to(device))
        rows = [index for index in drawn.tolist() if index != _FILLER]
        parts = micro_batches(
            rows,
            self._token_counts,
            token_budget=self.args.train_batch_size * max(self._token_counts[row] for row in rows),
            call_tokens=call_tokens(device),
            rank=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
        )
        update: list[dict[str, Any]] = [{_MICRO_BATCHES: []} for _ in batches]
        update[-1][_MICRO_BATCHES] = [self.batch_of(part) for part in parts]
        links = sum(self._links[row] for row in rows)
        return update, torch.tensor(float(links), device=device)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train, from the start or from a checkpoint folder, whose labels serve for the rest of its epoch."""
        folder = resume_from_checkpoint if isinstance(resume_from_checkpoint, str) else None
        self.label_table.resumed_from = None if folder is None else Path(folder)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def start_epoch(self, number: int) -> None:
        """Start an epoch (counted from 1): choose its order of rows and make its labels, if that is due."""
        # A run that resumes within an epoch wraps the data loader, which then no longer sets the epoch.
        self._order.set_epoch(number - 1)
        self.label_table.start(number)
        self.make_labels_if_due()

    def make_labels_if_due(self) -> None:
        """Make the labels of the rest of this epoch, if that is due; every process must call it."""
        if self.label_table.is_due:
            batch = self._batch(self.train_trajectories, tokens=False)
            values_BT1 = activate(self.predict_logits(self.train_trajectories), self.config.activation)
            self.label_table.fill(values_BT1, batch["outcomes"], batch["lengths"])

    # --- loss -------------------------------------------------------------------------------------------

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Run micro-batches forward and backward; a loss that is not finite raises ``TrainingError``."""
        parts = inputs[_MICRO_BATCHES]
        total = torch.zeros((), device=self.args.device)
        for number, part in enumerate(parts, start=1):
            with self._accumulating(model, is_last=number == len(parts)):
                loss: Tensor = super().training_step(model, part, num_items_in_batch)
            refuse_non_finite("loss", float(loss), self.args, self.state.global_step)
            total += loss
        return total

    def _accumulating(self, model: nn.Module, *, is_last: bool) -> AbstractContextManager[None]:
        """Add up gradients until the last micro-batch; DeepSpeed then steps in its backward pass."""
        self.accelerator.gradient_state._set_sync_gradients(is_last)
        if is_last or self.is_deepspeed_enabled:
            return nullcontext()
        without_sync: AbstractContextManager[None] = self.accelerator.no_sync(model)
        return without_sync

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return ``(L_Q + β L_A)`` of one micro-batch, divided by the links of the whole update."""
        logits_BT1 = read_logits(model, inputs["token_ids"], inputs["positions"])
        refuse_non_finite("a value", float(logits_BT1.detach().sum()), self.args, self.state.global_step)
        links = (
            inputs["lengths"][inputs["is_real"]].sum() if num_items_in_batch is None else num_items_in_batch
        )
        targets = self.label_table.labels_of(inputs, activate(logits_BT1, self.config.activation))
        loss = self._loss(logits_BT1, targets, inputs["lengths"], links)
        # DDP averages gradients over the processes, while the divisor already counts the links of all.
        total = loss.total * (1 if num_items_in_batch is None else self.accelerator.num_processes)
        return (total, {"logits": logits_BT1}) if return_outputs else total

    def _loss(
        self, logits_BT1: Tensor, targets: LabelBatch, lengths_B: Tensor, links: Tensor | int
    ) -> AgentPRMLoss:
        column_T1 = torch.arange(logits_BT1.shape[1], device=logits_BT1.device)
        is_last_BT1 = column_T1 == lengths_B.unsqueeze(1)
        weight_BT1 = torch.where(is_last_BT1, self.config.last_step_weight, 1.0) * targets.promise_weight
        return agent_prm_loss(
            logits_BT1,
            targets.promise,
            targets.progress,
            weight_BT1,
            targets.progress_weight,
            num_links=links,
            beta=self.config.beta,
            kind=self.config.loss,
            activation=self.config.activation,
        )

    # --- prediction and evaluation ----------------------------------------------------------------------

    def predict_logits(self, trajectories: Sequence[Trajectory]) -> Tensor:
        """Return the head's raw outputs for the chains of many trajectories; every process must call it.

        The processes share the work.

        Returns:
            (N, values of the longest chain) on the CPU, 0 in the padding, the same on every process.
        """
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        share = math.ceil(len(trajectories) / world)
        # Dealt out by length, so that the shares have about equally many tokens.
        order = sorted(range(len(trajectories)), key=lambda i: len(trajectories[i].token_ids))
        # A process with fewer forwards would leave the others waiting in the model's collectives.
        own = [trajectories[i] for i in [*order, *order[-1:] * (share * world - len(order))][rank::world]]
        rows = read_sequences(
            self.model_wrapped if self.is_deepspeed_enabled else self.model,
            [trajectory.token_ids for trajectory in own],
            [chain_positions(trajectory, self.config.value_reads, self.config.head) for trajectory in own],
            sized_batches([len(trajectory.token_ids) for trajectory in own], self.args.eval_batch_size),
        )
        width = max(len(chain_positions(t, self.config.value_reads)) for t in trajectories)
        padded = torch.tensor(
            [row + [0.0] * (width - len(row)) for row in rows], device=self.accelerator.device
        )
        gathered: Tensor = self.accelerator.gather(padded)
        logits_BT1 = torch.empty(len(trajectories), width)
        # Row k of the order is row k // world of process k % world.
        logits_BT1[order] = (
            gathered.cpu().view(world, share, width).transpose(0, 1).flatten(0, 1)[: len(order)]
        )
        refuse_non_finite("a value", float(logits_BT1.sum()), self.args, self.state.global_step)
        return logits_BT1

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Measure the values on the held-out tasks: loss, squared error, ranking, calibration.

        The loss is the training loss, against labels that are the same in every epoch. If the estimator needs
        values, those labels are returns (see ``LabelTable.held_out``).
        """
        batch = self._batch(self.held_out, tokens=False)
        logits_BT1 = self.predict_logits(self.held_out)
        values_BT1 = activate(logits_BT1, self.config.activation)
        targets = self.label_table.held_out(values_BT1, batch["outcomes"], batch["lengths"])
        loss = self._loss(logits_BT1, targets, batch["lengths"], int(batch["lengths"].sum()))
        values = [
            action_values(row[: n + 1], self.config.value_reads)
            for row, n in zip(values_BT1.tolist(), batch["lengths"].tolist(), strict=True)
        ]
        measured = {
            "loss": float(loss.total),
            **_headline(values, [t.outcome.success for t in self.held_out]),
        }
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in measured.items()}
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


def _headline(values: Sequence[Sequence[float]], success: Sequence[bool]) -> dict[str, float]:
    """Return the AUC at the start, middle and end of trajectories, and the calibration over all steps."""
    first, _, middle, _, last = auc_by_relative_position(values, success, bins=5)
    every_step = calibration(
        [v for row in values for v in row], [s for row, s in zip(values, success, strict=True) for _ in row]
    )
    named = {"auc_first": first.auc, "auc_middle": middle.auc, "auc_last": last.auc}
    ranked = {name: value for name, value in named.items() if value is not None}
    return {**ranked, "brier": every_step.brier, "calibration_error": every_step.expected_error}


def _indices(rows: Sequence[Mapping[str, int]]) -> dict[str, Tensor]:
    """Collate rows of the data loader; their trajectories are padded when an update is cut."""
    return {"index": torch.tensor([row["index"] for row in rows])}


class _WithFillers(Sampler[int]):
    """Another sampler's order, then filler rows, so that all processes draw equally many rows.

    Without fillers the data loader would repeat real rows, which would then count twice.
    """

    def __init__(self, order: LengthGroupedSampler, fillers: int) -> None:
        self.order, self.fillers = order, fillers

    def __len__(self) -> int:
        return len(self.order) + self.fillers

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; called by the data loader."""
        self.order.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        yield from self.order
        yield from range(len(self.order), len(self))


def _order(trajectories: Sequence[Trajectory], args: TrainingArguments) -> _WithFillers:
    """Return the order of rows over all processes; the rows of an update have similar lengths."""
    lengths = [len(trajectory.token_ids) for trajectory in trajectories]
    update = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return _WithFillers(LengthGroupedSampler(lengths, update, seed=args.seed), _fillers(len(lengths), args))


def _fillers(rows: int, args: TrainingArguments) -> int:
    return -rows % (args.train_batch_size * args.world_size) if args.world_size > 1 else 0


class _Labels(TrainerCallback):
    """Passes the starts of epochs and the saving of checkpoints on to the trainer's labels."""

    def __init__(self, trainer: PRMTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the epoch, for a run that resumes from its last checkpoint and starts no further epoch."""
        self.trainer.label_table.epoch = _epoch_of(state)
        # An uninterrupted run has seen the start of its last update, and no later moment.
        an_update = state.num_train_epochs / max(state.max_steps, 1)
        self.trainer.label_table.progress = max(0.0, (state.epoch or 0.0) - an_update)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the epoch."""
        self.trainer.start_epoch(_epoch_of(state))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make labels if the cold start has just ended within an epoch."""
        self.trainer.label_table.progress = max(self.trainer.label_table.progress, state.epoch or 0.0)
        self.trainer.make_labels_if_due()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save the labels beside the checkpoint."""
        if self.trainer.is_world_process_zero():
            self.trainer.label_table.save(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def _epoch_of(state: TrainerState) -> int:
    """Return the current epoch, counted from 1; the last one after the end of training."""
    current = int(state.epoch or 0) + 1
    return min(current, max(int(state.num_train_epochs), 1))


def collate(
    trajectories: Sequence[Trajectory],
    outcome: str,
    value_reads: str = ACTION,
    head: str = SCALAR,
    *,
    tokens: bool = True,
) -> dict[str, Tensor]:
    """Turn trajectories into padded tensors.

    Args:
        trajectories: B trajectories.
        outcome: ``"success"`` or ``"score"``.
        value_reads: where values are, see ``rlprm.models.heads.value_positions``. T below is the number
            of links of a chain: the steps, or 2 steps - 1 with ``state_and_action``.
        head: a name of ``rlprm.models.heads``.
        tokens: False leaves the token ids out.

    Returns:
        ``token_ids`` (B, L) padded on the right, ``positions`` (B, T+1, 5), ``lengths`` (B,) T of each row,
        ``outcomes`` (B,) in [0, 1].

    Raises:
        ConfigError: for another name of an outcome.
    """
    positions = [chain_positions(t, value_reads, head) for t in trajectories]
    batch = {
        "positions": stack_positions(positions),
        "lengths": torch.tensor([len(row) - 1 for row in positions]),
        "outcomes": torch.tensor([t.outcome.value(outcome) for t in trajectories]),
    }
    if tokens:
        batch["token_ids"] = pad_right([t.token_ids for t in trajectories], 0)
    return batch
