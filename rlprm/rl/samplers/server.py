"""Episodes of the policy under training on inference servers, which get its weights after each update."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from peft import PeftModel

from rlprm.errors import TrainingError
from rlprm.models import zero
from rlprm.models.hub.download import model_folder
from rlprm.models.loading import revision_of
from rlprm.policies.base import Policy
from rlprm.policies.decoding.whole import read_places
from rlprm.policies.self_check import FirstWaveCheck
from rlprm.policies.server.check import out_of_step
from rlprm.policies.server.policy import ServerPolicy
from rlprm.policies.server.sync import push_adapter, push_weights, write_folder, write_weights
from rlprm.rl.config import RLConfig
from rlprm.rl.engine import Engine
from rlprm.rl.monitor.mismatch import MEAN_OF_FLOAT32, MEAN_OF_HALF
from rlprm.rl.samplers.base import gather_shares, run_distributed, run_share
from rlprm.rollouts.threads import Threads
from rlprm.runtime.processes import Processes, collective
from rlprm.types import EpisodeSetting, Task, Trajectory

__all__ = ["ServerSampler"]


class ServerSampler:
    """Acts through servers; see :class:`rlprm.rl.samplers.base.Sampler`.

    A policy with adapters is served as the base model and an adapter, any other one as full weights. After
    each update the new weights are written to a folder that the servers see, and read there. Some
    log-probabilities are then compared with the trainer's.

    Args:
        config: of the run.
        policy: on the servers, as it was found.
        processes: of the launch; each asks the servers for its share of the episodes.
    """

    def __init__(self, config: RLConfig, policy: ServerPolicy, processes: Processes) -> None:
        self.config, self.processes = config, processes
        self._policy = policy
        self._base = policy.name
        self._folder = Path(config.sync_dir or f"{config.output_dir}/sync")
        # Another run's folder may have the same name; versions of both must differ on one server.
        place = zlib.crc32(str(Path(config.output_dir).absolute()).encode())
        self._name = f"{Path(config.output_dir).name}-{place:08x}"
        self._engine: Engine | None = None
        self._version = 0
        self._adapter: str | None = None
        self._check = FirstWaveCheck()
        self._background = Threads(1)
        opening = policy.renderer.prompt_ids([{"role": "user", "content": "x"}])
        self._prompts: list[tuple[int, ...]] = [tuple(opening)]

    @property
    def policy(self) -> Policy:
        """See :class:`rlprm.rl.samplers.base.Sampler`."""
        return self._policy

    @property
    def _base_version(self) -> str:
        """Version of the base weights under adapters; the servers know one version, not one for each."""
        return f"{self._name}-base"

    @property
    def in_half(self) -> bool:
        """See :class:`rlprm.rl.samplers.base.Sampler`."""
        return self._policy.served.dtype != "float32"

    @property
    def is_exact(self) -> bool:
        """See :class:`rlprm.rl.samplers.base.Sampler`."""
        return False

    def offloaded(self) -> AbstractContextManager[None]:
        """See :class:`rlprm.rl.samplers.base.Sampler`; the servers keep their memory."""
        return nullcontext()

    @collective
    def sync(self, engine: Engine, *, version: int) -> None:
        """See :class:`rlprm.rl.samplers.base.Sampler`.

        Raises:
            ConfigError: if a server does not take new weights.
            TrainingError: if a server then writes with other weights than the trainer has.
        """
        self._engine, self._version = engine, version
        if isinstance(engine.model.policy, PeftModel):
            self._push_adapter(engine)
        else:
            self._push_weights(engine)
        self._compare(engine)

    def _push_adapter(self, engine: Engine) -> None:
        if self._adapter is None:  # an earlier run may have left other weights
            self._serve(model_folder(self.config.model), self._base_version)
        name = f"{self._name}-{self._version}"
        folder = self._folder / name
        with engine.acting() as policy:
            if self.processes.is_main:
                write_folder(folder, policy.save_pretrained)
                self._policy.servers.run(
                    push_adapter(self._policy.servers, folder, name, before=self._adapter)
                )
        self.processes.wait()
        self._forget(self._adapter, name)
        self._adapter = name
        self._policy = self._policy.with_weights(
            revision=name, versions=frozenset({self._base_version}), name=name
        )

    def _push_weights(self, engine: Engine) -> None:
        weights = zero.full_weights(
            engine.model.policy, dtype=self._policy.served.torch_dtype or torch.float32
        )
        version = f"{self._name}-{self._version}"
        if self.processes.is_main:
            write_weights(weights, self._folder / "weights")
            del weights
            self._policy.servers.run(push_weights(self._policy.servers, self._folder / "weights", version))
        self.processes.wait()
        self._policy = self._policy.with_weights(revision=version, versions=frozenset({version}))

    def _forget(self, old: str | None, new: str) -> None:
        """Remove the files of an adapter that no server reads any more."""
        if self.processes.is_main and old is not None and old != new:
            shutil.rmtree(self._folder / old, ignore_errors=True)

    def _compare(self, engine: Engine) -> None:
        """End the run if the servers do not write with the trainer's weights.

        Raises:
            TrainingError: naming what is likely out of step.
        """
        found = None
        with engine.acting() as policy:
            if self.processes.is_main:
                half = self.in_half or engine.in_half

                def read(ids: Sequence[int], places: Sequence[int]) -> list[float]:
                    with torch.inference_mode():
                        return read_places(policy, ids, places, temperature=self._policy.temperature)[0]

                found = out_of_step(
                    self._policy, self._prompts, read, bound=MEAN_OF_HALF if half else MEAN_OF_FLOAT32
                )
        found = self.processes.gather_all(found)[0]
        if found is not None:
            raise TrainingError(f"after version {self._version} of the weights was handed on, {found}")

    @collective
    @contextmanager
    def acting_as(self, model: str) -> Iterator[None]:
        """See :class:`rlprm.rl.samplers.base.Sampler`."""
        synced, revision = self._policy, revision_of(model)
        version = f"{self._name}-saved-{revision}"
        self._serve(model_folder(model), version)
        self._policy = synced.with_weights(revision=revision, versions=frozenset({version}), name=self._base)
        try:
            yield
        finally:
            self._policy = synced
        # Not after an error: one process alone would wait for the others, which have none.
        if self._adapter is not None:
            self._serve(model_folder(self.config.model), self._base_version)
        if self._engine is not None:
            self.sync(self._engine, version=self._version)

    def _serve(self, folder: Path, version: str) -> None:
        if self.processes.is_main:
            self._policy.servers.run(push_weights(self._policy.servers, folder, version))
        self.processes.wait()

    @collective
    def collect(
        self, jobs: Sequence[tuple[Task, int]], setting: EpisodeSetting, *, greedy: bool = False
    ) -> list[Trajectory]:
        """See :class:`rlprm.rl.samplers.base.Sampler`."""
        found = run_distributed(
            jobs,
            self._policy.at_temperature(0.0) if greedy else self._policy,
            setting,
            wave_size=self.config.wave_size,
            seed=self.config.seed,
            processes=self.processes,
            check=self._check,
        )
        self._remember(found)
        return found

    @collective
    def begin(
        self, jobs: Sequence[tuple[Task, int]], setting: EpisodeSetting
    ) -> Callable[[], list[Trajectory]]:
        """See :class:`rlprm.rl.samplers.ahead.BackgroundSampler`."""
        own = self._background.submit(
            run_share, jobs, self._policy, setting,
            wave_size=self.config.wave_size, seed=self.config.seed, processes=self.processes,
            check=self._check,
        )  # fmt: skip

        def finish() -> list[Trajectory]:
            found = gather_shares(own.result(), self.processes)
            self._remember(found)
            return found

        return finish

    def _remember(self, found: Sequence[Trajectory]) -> None:
        """Keep prompts that the servers have read: a cache that is left from other weights shows there."""
        self._prompts = [t.token_ids[: t.steps[-1].start] for t in found if t.steps][:2] or self._prompts
