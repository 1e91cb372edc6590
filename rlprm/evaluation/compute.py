"""What an evaluation computes: floating-point operations from the sizes of models, seconds, peak memory.

A token that goes through a decoder costs ``2 P`` operations (one multiplication and one addition for each of
the P parameters of its blocks), and attention ``4 · layers · width · context`` more: products of its query
with the keys of the context, and of the weights with the values. Embeddings are looked up and cost nothing.
An output layer costs ``2 · hidden · vocabulary`` for each token whose logits are computed; a sampled token
is one. Norms and softmax are left out. (Kaplan et al. 2020, arXiv 2001.08361, table 1)
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlprm.evaluation.records import BEAM, GREEDY, SEARCH, EvaluationRecord
from rlprm.runtime.files import read_json, write_json
from rlprm.types import Trajectory

__all__ = ["Meter", "ModelSize", "flops", "mean_context", "row_compute", "size_of"]


@dataclass(frozen=True)
class ModelSize:
    """The sizes of a decoder that its operations follow from."""

    body: int
    """Parameters of the blocks, without embeddings and output layer."""
    layers: int
    width: int
    """Of all attention heads together."""
    head: int
    """Parameters of the output layer over the vocabulary; 0 without one."""


def size_of(model: Any) -> ModelSize:
    """Return the sizes of a Hugging Face decoder with any head.

    Args:
        model: with ``config``, ``parameters()`` and ``get_input_embeddings()``.
    """
    config = model.config
    embedding = model.get_input_embeddings().weight
    output = getattr(model.get_output_embeddings(), "weight", None)
    parameters = {id(p): p.numel() for p in model.parameters()}  # tied weights are there once
    embedded = {id(p): p.numel() for p in (embedding, output) if p is not None}
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    return ModelSize(
        body=sum(parameters.values()) - sum(embedded.values()),
        layers=config.num_hidden_layers,
        width=width,
        head=0 if output is None else output.numel(),
    )


def flops(size: ModelSize, *, tokens: float, context: float, logits: float = 0.0) -> float:
    """Return the floating-point operations of forwards.

    Args:
        size: of the model.
        tokens: that go through the blocks.
        context: mean number of tokens that each of them attends to, itself included.
        logits: tokens whose logits are computed.
    """
    return tokens * (2 * size.body + 4 * size.layers * size.width * context) + 2 * size.head * logits


def mean_context(trajectories: Iterable[Trajectory]) -> float:
    """Return the mean context of the tokens of trajectories, each read once: ``Σ L (L + 1) / 2 / Σ L``."""
    lengths = [len(t.token_ids) for t in trajectories]
    return sum(length * (length + 1) for length in lengths) / max(2 * sum(lengths), 1)


def row_compute(
    record: EvaluationRecord,
    meter: Meter,
    *,
    policy: ModelSize | None,
    scorers: Mapping[str, ModelSize | None],
    pool_size: int,
    context: float,
) -> dict[str, float | None]:
    """Return what one row of a table computed.

    Args:
        record: of the row.
        meter: of the stage.
        policy: its size; None if it is not known.
        scorers: name of a scorer → its size; None if it reads tokens with a model of unknown size, or has no
            model.
        pool_size: candidates per task of the pool; a row takes the seconds of its share of them.
        context: from :func:`mean_context`.

    Returns:
        Mean ``policy_flops`` and ``scorer_flops`` per task, None if the size is unknown;
        ``seconds`` for all tasks; ``peak_memory`` in bytes.
    """
    acting: float | None = None
    if policy is not None:
        acting = flops(policy, tokens=record.policy_tokens, context=context, logits=record.sampled_tokens)
    size = scorers.get(record.scorer or "")
    scoring: float | None = None if record.prm_tokens else 0.0
    if size is not None and record.prm_tokens:
        scoring = flops(size, tokens=record.prm_tokens, context=context, logits=record.sampled_tokens)
    parts, share = _parts(record), (record.episodes or record.n) / pool_size
    if record.is_search or record.strategy == GREEDY:
        share = 1.0
    return {
        "policy_flops": acting,
        "scorer_flops": scoring,
        "seconds": share * sum(meter.seconds.get(part, 0.0) for part in parts),
        "peak_memory": max((meter.peak_memory.get(part, 0) for part in parts), default=0),
    }


def _parts(record: EvaluationRecord) -> tuple[str, ...]:
    """Return the measured parts of the stage that a row took."""
    if record.strategy == GREEDY:
        return ("greedy",)
    if record.strategy == BEAM:
        return (f"beam {record.n}x{record.m} {record.scorer}",)
    if record.strategy == SEARCH:
        return (f"{record.search} {record.scorer}",)
    scoring = () if record.scorer is None else (f"scoring {record.scorer.removesuffix('_x_policy')}",)
    return ("pool", *scoring)


class Meter:
    """Seconds and peak memory of the named parts of a stage, over the runs that resume it.

    A part that keeps what it has done adds up over the runs. Of a part that every run does anew, the last run
    counts. The seconds of a process that was killed from outside are lost.

    Peak memory is the device's if a GPU is used. Otherwise it is the process's so far, because the operating
    system does not say what a part of a process used; it never falls from one part to the next.

    Args:
        path: file that keeps the numbers from run to run; None for a process that only measures.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        kept: Mapping[str, Mapping[str, float]] = (
            read_json(path) if path is not None and path.exists() else {}
        )
        self.seconds: dict[str, float] = dict(kept.get("seconds", {}))
        self.peak_memory: dict[str, int] = {k: int(v) for k, v in kept.get("peak_memory", {}).items()}

    @contextmanager
    def measure(self, name: str, *, resumes: bool = False) -> Iterator[None]:
        """Measure the body.

        Args:
            name: of the part.
            resumes: whether a later run goes on with what the body has done. Its seconds are then added to
                those of earlier runs, even if the body fails.
        """
        _reset_peak()
        started = time.perf_counter()
        completed = False
        try:
            yield
            completed = True
        finally:
            if completed or resumes:
                before = self.seconds.get(name, 0.0) if resumes else 0.0
                self.seconds[name] = round(before + time.perf_counter() - started, 2)
                self.peak_memory[name] = max(self.peak_memory.get(name, 0), _peak())
                if self.path is not None:
                    write_json(self.path, {"seconds": self.seconds, "peak_memory": self.peak_memory})


def _cuda() -> Any:
    """Return ``torch.cuda`` if a GPU is in use; torch is not imported for the question."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def _reset_peak() -> None:
    if (cuda := _cuda()) is not None:
        cuda.reset_peak_memory_stats()


def _peak() -> int:
    if (cuda := _cuda()) is not None:
        return int(cuda.max_memory_allocated())
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else 1024 * kilobytes
