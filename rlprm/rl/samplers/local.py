"""Episodes of the policy under training, in the processes that train it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel

from rlprm.data.rendering import ChatRenderer
from rlprm.models import zero
from rlprm.models.host_memory import in_host_memory, tensors_of
from rlprm.models.loading import load_causal_lm, revision_of
from rlprm.policies.base import Policy
from rlprm.policies.hf import HFPolicy
from rlprm.policies.merged import can_be_merged, merge_into, merged_copy
from rlprm.policies.self_check import FirstWaveCheck
from rlprm.rl.config import RLConfig
from rlprm.rl.engine import Engine
from rlprm.rl.samplers.base import run_distributed
from rlprm.runtime.processes import Processes, collective
from rlprm.types import EpisodeSetting, Task, Trajectory

__all__ = ["LocalSampler"]

log = logging.getLogger(__name__)


class LocalSampler:
    """Acts with the policy under training in the processes that train it.

    Args:
        config: of the run.
        renderer: of the policy's tokenizer.
        processes: of the launch; they share the waves of a collection.
        saved_dtype: dtype that saved policies are loaded in, and that merged adapters act in.
    """

    def __init__(
        self, config: RLConfig, renderer: ChatRenderer, processes: Processes, *, saved_dtype: str = "float32"
    ) -> None:
        self.config, self.renderer, self.processes = config, renderer, processes
        self.saved_dtype = saved_dtype
        self._engine: Engine | None = None
        self._version = 0
        self._saved: HFPolicy | None = None
        self._merged: PreTrainedModel | None = None
        self._acts_unmerged = False
        self._check = FirstWaveCheck()

    @property
    def policy(self) -> Policy:
        """See :class:`~rlprm.rl.samplers.base.Sampler`."""
        return self._synced_policy()

    @property
    def in_half(self) -> bool:
        """See :class:`~rlprm.rl.samplers.base.Sampler`."""
        return self.saved_dtype != "float32"

    @property
    def is_exact(self) -> bool:
        """See :class:`~rlprm.rl.samplers.base.Sampler`; merged adapters are other weights."""
        return self._merged is None and not self.in_half

    @collective
    def sync(self, engine: Engine, *, version: int) -> None:
        """See :class:`~rlprm.rl.samplers.base.Sampler`.

        A policy without adapters shares its weights with the sampler. Adapters are merged into a copy.
        """
        self._engine, self._version = engine, version
        if not isinstance(engine.model.policy, PeftModel):
            return
        with engine.acting() as policy:
            if self._merged is not None:
                merge_into(self._merged, policy)
            elif can_be_merged(policy):
                self._merged = merged_copy(policy, self._load_acting)
            elif not self._acts_unmerged:
                self._acts_unmerged = True
                log.warning(
                    "the policy acts through its adapters, which is slow: they lie beside quantised or tied "
                    "weights and cannot be merged"
                )

    def _load_acting(self) -> PreTrainedModel:
        with zero.loading_unsharded():
            return load_causal_lm(self.config.model, dtype=self.saved_dtype)

    @collective
    @contextmanager
    def acting_as(self, model: str) -> Iterator[None]:
        """See :class:`~rlprm.rl.samplers.base.Sampler`."""
        with zero.loading_unsharded():
            weights = load_causal_lm(model, dtype=self.saved_dtype)
        self._saved = self._policy(weights, revision_of(model))
        try:
            yield
        finally:
            self._saved = None

    @collective
    def collect(
        self,
        jobs: Sequence[tuple[Task, int]],
        setting: EpisodeSetting,
        *,
        greedy: bool = False,
        stop: Callable[[], object] | None = None,
    ) -> list[Trajectory]:
        """See :class:`~rlprm.rl.samplers.base.Sampler`."""
        with self._acting_policy() as policy:
            return run_distributed(
                jobs,
                policy.at_temperature(0.0) if greedy else policy,
                setting,
                wave_size=self.config.wave_size,
                seed=self.config.seed,
                processes=self.processes,
                check=self._check,
                stop=stop,
            )

    @contextmanager
    def offloaded(self) -> Iterator[None]:
        """See :class:`~rlprm.rl.samplers.base.Sampler`."""
        with in_host_memory(tensors_of(self._merged) if self._merged is not None else ()):
            yield

    @contextmanager
    def _acting_policy(self) -> Iterator[HFPolicy]:
        if self._saved is not None:
            yield self._saved
            return
        if self._merged is not None:
            yield self._synced_policy()
            return
        with self._synced().acting():
            yield self._synced_policy()

    def _synced_policy(self) -> HFPolicy:
        revision = f"{Path(self.config.output_dir).name}-{self._version}"
        return self._policy(self._merged or self._synced().model.policy, revision)

    def _policy(self, weights: PreTrainedModel | PeftModel, revision: str) -> HFPolicy:
        config = self.config
        return HFPolicy(
            weights,
            self.renderer,
            revision=revision,
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
            context_length=config.context_length,
            reuse_cache=config.reuse_cache,
            max_thinking_tokens=config.max_thinking_tokens,
            wave_tokens=config.wave_tokens,
        )

    def _synced(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("a sampler acts after its first sync only")
        return self._engine
