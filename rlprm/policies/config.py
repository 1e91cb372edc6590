"""Settings of every stage that acts in an environment, and of every stage in which a policy acts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rlprm import envs
from rlprm.components import canonical, user_sources
from rlprm.data.formats import load_format
from rlprm.data.rendering import ChatRenderer
from rlprm.data.shards import Shards
from rlprm.errors import ConfigError, MismatchError, refuse_other_code
from rlprm.models.loading import context_length_of, load_causal_lm, load_tokenizer, revision_of
from rlprm.policies.hf import HFPolicy
from rlprm.runtime.config import setting
from rlprm.types import End, EpisodeSetting

__all__ = ["PolicyConfig", "TaskConfig"]


@dataclass
class TaskConfig:
    """Which environment, and how its episodes are run; shared by all stages that act in it."""

    environment: str = setting("babyai", "Environment: a name, a dotted path, or the path of a .py file.")
    env_kwargs: dict[str, Any] = setting(
        {}, "Settings of the environment's task list, e.g. env_kwargs.levels."
    )
    end: str = setting(
        "declared", "Who ends an episode: declared (the agent) or on_success (the environment)."
    )
    round_limit: int | None = setting(None, "Agent turns per episode; the environment's default if unset.")
    prompt: str = setting("none", "Opening instructions: none, short or agentgym.")
    action_format: str = setting("action_only", "How actions are written: action_only or react.")

    def __post_init__(self) -> None:
        """Refuse impossible values, then let the other bases of a subclass validate theirs.

        Raises:
            ConfigError: naming the setting, what was received and what is allowed.
        """
        self.environment = canonical(self.environment)
        self.episode_setting()
        load_format(self.action_format)
        if self.round_limit is not None and self.round_limit < 1:
            raise ConfigError(f"round_limit: got {self.round_limit}, allowed: 1 or more, or unset")
        following = getattr(super(), "__post_init__", None)
        if following is not None:
            following()

    def episode_setting(self) -> EpisodeSetting:
        """Return what a rollout needs to know.

        Raises:
            ConfigError: for an unknown ``end``.
        """
        return EpisodeSetting(
            _one_of("end", self.end, End), self.round_limit, self.prompt, self.action_format
        )

    def environment_sources(self) -> dict[str, Any]:
        """Return what the environment's code adds to a record, see :func:`rlprm.components.user_sources`."""
        return user_sources(environment=envs.load(self.environment))


def _one_of(name: str, value: str, enum: type[End]) -> End:
    try:
        return enum(value)
    except ValueError:
        raise ConfigError(
            f"{name}: got {value!r}, allowed: {', '.join(member.value for member in enum)}"
        ) from None


@dataclass
class PolicyConfig(TaskConfig):
    """Settings of every stage in which a policy acts."""

    model: str = setting("", "The policy: a folder (made by rlprm sft) or a hub id.")
    temperature: float = setting(1.0, "Sampling temperature; 0 is greedy.")
    max_new_tokens: int = setting(32, "Longest action, in tokens, its closing token included.")
    context_length: int | None = setting(None, "Longest conversation in tokens; the model's own if unset.")
    reuse_cache: bool = setting(True, "Keep keys and values across turns; false is the slow reference.")
    wave_size: int = setting(256, "Episodes run side by side.")
    dtype: str = setting("auto", "Weights of the policy: auto, float32, bfloat16, float16.")
    seed: int = setting(0, "Seed of all sampling.")

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises:
            ConfigError: naming the setting, what was received and what is allowed.
        """
        super().__post_init__()
        if not self.model:
            raise ConfigError("model: nothing given; set it in the recipe or with --model")
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature: got {self.temperature}, allowed: 0 or more")
        for name in ("max_new_tokens", "wave_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: got {getattr(self, name)}, allowed: 1 or more")
        if self.context_length is not None and self.context_length < 1:
            raise ConfigError(f"context_length: got {self.context_length}, allowed: 1 or more, or unset")
        if self.seed < 0:
            raise ConfigError(f"seed: got {self.seed}, allowed: 0 or more")

    def require_setting_of(self, store: Shards) -> None:
        """Refuse episodes, or states of them, of another setting than this one.

        Raises:
            MismatchError: naming the differences.
        """
        names = ("environment", "end", "round_limit", "prompt", "action_format")
        different = {n: (store.meta.get(n), getattr(self, n)) for n in names}
        details = ", ".join(f"{n}: {a!r} there, {b!r} now" for n, (a, b) in different.items() if a != b)
        if details:
            raise MismatchError(f"{store.folder} was made in another setting ({details})")
        refuse_other_code(f"{store.folder} was made", store.meta, self.environment_sources())

    def collection_meta(self, policy: HFPolicy) -> dict[str, object]:
        """Return what is stored with this policy's episodes beside what :func:`collect` knows itself."""
        return {
            "environment": self.environment,
            "env_kwargs": self.env_kwargs,
            **self.environment_sources(),
            # Waves of several precisions would be of several policies.
            "dtype": str(policy.model.dtype).removeprefix("torch."),
        }

    def require_positions(self) -> None:
        """Refuse conversations longer than the model has positions for.

        Raises:
            ConfigError: naming both lengths.
        """
        own = context_length_of(self.model)
        if self.context_length is not None and self.context_length > own:
            raise ConfigError(f"context_length: got {self.context_length}, allowed: up to the model's {own}")

    def load_policy(self) -> HFPolicy:
        """Load the policy.

        Raises:
            ArtifactError: if it is missing.
            ChatTemplateError: if its chat template cannot be used.
            ConfigError: see :meth:`require_positions`.
        """
        self.require_positions()
        return HFPolicy(
            load_causal_lm(self.model, dtype=self.dtype),
            ChatRenderer(load_tokenizer(self.model)),
            revision=revision_of(self.model),
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            context_length=self.context_length,
            reuse_cache=self.reuse_cache,
        )
