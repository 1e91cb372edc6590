"""The PRM trainer: labels from the current values, promise + progress loss, global denominators.

One pass of the data through this file: a batch of trajectories is collated to
token ids, reads, lengths and outcomes; one forward reads ``v_0 ... v_T`` of
every row; ``rlprm.prm.label_table`` has targets for them, made of outcomes (and,
for TD-GAE, values); the loss compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
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

from rlprm.data.batching import LengthGroupedSampler, pad_right, sized_batches
from rlprm.functional.activation import activate
from rlprm.functional.losses import AgentPRMLoss, agent_prm_loss
from rlprm.functional.metrics import auc_by_relative_position, calibration
from rlprm.labels.base import LabelBatch
from rlprm.models.heads import SCALAR
from rlprm.models.reading import read_logits, read_sequences, stack_positions
from rlprm.models.value_positions import ACTION, action_values, chain_positions
from rlprm.prm.config import PRMConfig
from rlprm.prm.label_table import LabelTable
from rlprm.prm.stored import StoredLabels
from rlprm.training import StopOnNonFiniteLoss, check_world_size, refuse_non_finite
from rlprm.types import Trajectory

_FILLER = -1
"""Index of a row that counts for nothing."""


class PRMTrainer(Trainer):
    """Trains a reward model on step labels.

    Args:
        model: token classification model with one label, or one with a lm head.
        args: settings; also everything ``transformers.TrainingArguments`` knows.
        train: trajectories to learn from; all have at least one step.
        held_out: trajectories of other tasks, for evaluation.
        tokenizer: saved with the checkpoint.
        stored: labels of ``train`` and of ``held_out`` to learn from; made by the estimator where None.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: PRMConfig,
        train: Sequence[Trajectory],
        held_out: Sequence[Trajectory],
        tokenizer: PreTrainedTokenizerBase | None = None,
        stored: StoredLabels | None = None,
    ) -> None:
        self.train_trajectories = train
        self.held_out = held_out
        self.label_table = LabelTable(args, stored)
        self._order = _order(train, args)
        super().__init__(
            model=model,
            args=args,
            data_collator=self._collate,
            train_dataset=Dataset.from_dict(
                {"index": [*range(len(train)), *[_FILLER] * _fillers(len(train), args)]}
            ),
            eval_dataset=Dataset.from_dict({"index": list(range(len(held_out)))}),
            processing_class=tokenizer,
            callbacks=[_Labels(self), StopOnNonFiniteLoss()],
        )
        check_world_size(args)
        # The loss divides by the global number of links itself; the trainer must not divide again.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True

    # --- data -------------------------------------------------------------------------------------------

    def _batch(self, trajectories: Sequence[Trajectory], *, tokens: bool = True) -> dict[str, Tensor]:
        return collate(trajectories, self.args.outcome, self.args.value_reads, self.args.head, tokens=tokens)

    def _collate(self, rows: Sequence[Mapping[str, int]]) -> dict[str, Tensor]:
        indices = [row["index"] for row in rows]
        is_real = torch.tensor([index != _FILLER for index in indices])
        batch = self._batch([self.train_trajectories[max(index, 0)] for index in indices])
        return {**batch, "index": torch.tensor(indices).clamp(min=0), "is_real": is_real}

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        return self._order

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor]:
        """Fetch the micro-batches of one update and count the links of their chains, over all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        links = sum(int(batch["lengths"][batch["is_real"]].sum()) for batch in batches)
        return batches, self.accelerator.gather(torch.tensor(float(links), device=device)).sum()

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train, from the start or from a checkpoint folder; labels of a half-finished epoch go on, too."""
        folder = resume_from_checkpoint if isinstance(resume_from_checkpoint, str) else None
        self.label_table.resumed_from = None if folder is None else Path(folder)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def start_epoch(self, number: int) -> None:
        """Enter an epoch (counted from 1): its order of rows, and its labels if they are made once for it."""
        # Resumed in the middle of an epoch, the loader is wrapped too deeply to pass the epoch on.
        self._order.set_epoch(number - 1)
        self.label_table.start(number)
        if self.label_table.is_due:
            batch = self._batch(self.train_trajectories, tokens=False)
            values_BT1 = activate(self.read(self.train_trajectories), self.args.activation)
            self.label_table.fill(values_BT1, batch["outcomes"], batch["lengths"])

    # --- loss -------------------------------------------------------------------------------------------

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Run one micro-batch forward and backward; a loss that is not finite ends training here."""
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        refuse_non_finite("loss", float(loss), self.args, self.state.global_step)
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return ``(L_Q + β L_A)`` of one micro-batch, divided by the links of the whole update."""
        logits_BT1 = read_logits(model, inputs["token_ids"], inputs["reads"])
        refuse_non_finite("a value", float(logits_BT1.detach().sum()), self.args, self.state.global_step)
        links = (
            inputs["lengths"][inputs["is_real"]].sum() if num_items_in_batch is None else num_items_in_batch
        )
        targets = self.label_table.labels_of(inputs, activate(logits_BT1, self.args.activation))
        loss = self._loss(logits_BT1, targets, inputs["lengths"], links)
        # Gradients are averaged over processes, while the denominator already counts all of them.
        total = loss.total * (1 if num_items_in_batch is None else self.accelerator.num_processes)
        return (total, {"logits": logits_BT1}) if return_outputs else total

    def _loss(
        self, logits_BT1: Tensor, targets: LabelBatch, lengths_B: Tensor, links: Tensor | int
    ) -> AgentPRMLoss:
        reads_T1 = torch.arange(logits_BT1.shape[1], device=logits_BT1.device)
        is_last_BT1 = reads_T1 == lengths_B.unsqueeze(1)
        weight_BT1 = torch.where(is_last_BT1, self.args.last_step_weight, 1.0) * targets.promise_weight
        return agent_prm_loss(
            logits_BT1,
            targets.promise,
            targets.progress,
            weight_BT1,
            targets.progress_weight,
            num_links=links,
            beta=self.args.beta,
            kind=self.args.loss,
            activation=self.args.activation,
        )

    # --- reading and evaluation -------------------------------------------------------------------------

    def read(self, trajectories: Sequence[Trajectory]) -> Tensor:
        """Read the head at ``v_0 ... v_T`` of many trajectories, shared out over the processes.

        Returns:
            (N, longest chain) raw outputs on the CPU, 0 in the padding, the same on every process.
        """
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        share = math.ceil(len(trajectories) / world)
        # Every process runs the same number of forwards, or collectives inside the model would wait forever.
        mine = [trajectories[min(rank * share + i, len(trajectories) - 1)] for i in range(share)]
        rows = read_sequences(
            self.model_wrapped if self.is_deepspeed_enabled else self.model,
            [trajectory.token_ids for trajectory in mine],
            [chain_positions(trajectory, self.args.value_reads, self.args.head) for trajectory in mine],
            sized_batches([len(trajectory.token_ids) for trajectory in mine], self.args.eval_batch_size),
        )
        width = max(len(chain_positions(t, self.args.value_reads)) for t in trajectories)
        padded = torch.tensor(
            [row + [0.0] * (width - len(row)) for row in rows], device=self.accelerator.device
        )
        gathered: Tensor = self.accelerator.gather(padded)
        logits_BT1 = gathered[: len(trajectories)].cpu()
        refuse_non_finite("a value", float(logits_BT1.sum()), self.args, self.state.global_step)
        return logits_BT1

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Measure the values on the held-out tasks: loss, squared error, ranking, calibration.

        The loss is that of training, against labels that are the same whenever it is measured: where the
        estimator makes its labels of values, the promise loss against returns (see ``LabelTable.held_out``).
        """
        batch = self._batch(self.held_out, tokens=False)
        logits_BT1 = self.read(self.held_out)
        values_BT1 = activate(logits_BT1, self.args.activation)
        targets = self.label_table.held_out(values_BT1, batch["outcomes"], batch["lengths"])
        loss = self._loss(logits_BT1, targets, batch["lengths"], int(batch["lengths"].sum()))
        values = [
            action_values(row[: n + 1], self.args.value_reads)
            for row, n in zip(values_BT1.tolist(), batch["lengths"].tolist(), strict=True)
        ]
        found = {"loss": float(loss.total), **_headline(values, [t.outcome.success for t in self.held_out])}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


def _headline(values: Sequence[Sequence[float]], success: Sequence[bool]) -> dict[str, float]:
    """AUC at the start, middle and end of trajectories, and calibration over all steps."""
    first, _, middle, _, last = auc_by_relative_position(values, success, bins=5)
    every_step = calibration(
        [v for row in values for v in row], [s for row, s in zip(values, success, strict=True) for _ in row]
    )
    named = {"auc_first": first.auc, "auc_middle": middle.auc, "auc_last": last.auc}
    ranked = {name: value for name, value in named.items() if value is not None}
    return {**ranked, "brier": every_step.brier, "calibration_error": every_step.expected_error}


class _WithFillers(Sampler[int]):
    """Another sampler's order, then filler rows: every process gets as many micro-batches as the others.

    Without them the data loader would fill up with real rows, and those would count twice.
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
    """Return the order of rows over all processes: those of an update are of similar length."""
    lengths = [len(trajectory.token_ids) for trajectory in trajectories]
    update = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return _WithFillers(LengthGroupedSampler(lengths, update, seed=args.seed), _fillers(len(lengths), args))


def _fillers(rows: int, args: TrainingArguments) -> int:
    return -rows % (args.train_batch_size * args.world_size) if args.world_size > 1 else 0


class _Labels(TrainerCallback):
    """Tells the trainer which epoch begins, and when to keep its labels."""

    def __init__(self, trainer: PRMTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say which epoch it is, should none begin: a run may go on from its last checkpoint."""
        self.trainer.label_table.epoch = _epoch_of(state)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Choose the order, and refresh labels."""
        self.trainer.start_epoch(_epoch_of(state))

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep labels beside the checkpoint."""
        if self.trainer.is_world_process_zero():
            self.trainer.label_table.save(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def _epoch_of(state: TrainerState) -> int:
    """Return the epoch that runs or is about to, from 1; the last one where training is over."""
    begun = int(state.epoch or 0) + 1
    return min(begun, max(int(state.num_train_epochs), 1))


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
        value_reads: where values are read, see ``rlprm.models.value_positions``. Where states are read too, a
            trajectory of T steps is a chain of 2 T - 1, and T below is the length of that chain.
        head: what reads them.
        tokens: False leaves the token ids out.

    Returns:
        ``token_ids`` (B, L) padded on the right, ``reads`` (B, T+1, 3), ``lengths`` (B,) T of each row,
        ``outcomes`` (B,) in [0, 1].

    Raises:
        ConfigError: for another name of an outcome.
    """
    reads = [chain_positions(t, value_reads, head) for t in trajectories]
    batch = {
        "reads": stack_positions(reads),
        "lengths": torch.tensor([len(row) - 1 for row in reads]),
        "outcomes": torch.tensor([t.outcome.value(outcome) for t in trajectories]),
    }
    if tokens:
        batch["token_ids"] = pad_right([t.token_ids for t in trajectories], 0)
    return batch
