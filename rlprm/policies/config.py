"""Settings of every stage that acts in an environment, and of every stage in which a policy acts."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlprm import envs
from rlprm.components import user_sources
from rlprm.data.formats import FORMATS
from rlprm.errors import ConfigError, MismatchError, refuse_other_code
from rlprm.policies.chat import ChatConfig
from rlprm.policies.openai.settings import KEY, check_address, check_key, check_kwargs
from rlprm.runtime.parsing.renames import with_new_defaults
from rlprm.runtime.settings import Settings, setting
from rlprm.runtime.tuning import LoadingConfig
from rlprm.types import End, EpisodeSetting

if TYPE_CHECKING:
    from rlprm.data.shards import Shards
    from rlprm.policies.base import LoadedPolicy
    from rlprm.policies.openai.policy import EndpointPolicy
    from rlprm.policies.server.policy import ServerPolicy

__all__ = ["PolicyConfig", "TaskConfig"]

_ENVIRONMENT = "Environment"
_POLICY = "Policy"
_SERVER = "Policy on a server"
_ENDPOINT = "Policy behind a chat endpoint"


@dataclass
class TaskConfig(Settings):
    """Which environment, and how its episodes are run; shared by all stages that act in it."""

    environment: str = setting(
        "babyai",
        "Environment: a name, a dotted path, or the path of a .py file.",
        family="environment",
        kwargs="env_kwargs",
        group=_ENVIRONMENT,
    )
    env_kwargs: dict[str, Any] = setting(
        {}, "Settings of the environment's task list, e.g. env_kwargs.levels.", group=_ENVIRONMENT
    )
    end: str = setting(
        "declared",
        "Who ends an episode: declared (the agent) or on_success (the environment).",
        choices=[end.value for end in End],
        group=_ENVIRONMENT,
    )
    round_limit: int | None = setting(
        None, "Agent turns per episode; the environment's default if unset.", least=1, group=_ENVIRONMENT
    )
    prompt: str = setting("none", "Opening instructions: none, short or agentgym.", group=_ENVIRONMENT)
    action_format: str = setting(
        "action_only", "How an action stands in a message.", choices=FORMATS, group=_ENVIRONMENT
    )

    def __post_init__(self) -> None:
        """Check the settings; state those of the environment whose default has changed.

        Raises:
            ConfigError: see :class:`rlprm.runtime.settings.Settings`.
        """
        super().__post_init__()
        self.env_kwargs = with_new_defaults(self.environment, self.env_kwargs)

    def episode_setting(self) -> EpisodeSetting:
        """Return the settings of a rollout."""
        return EpisodeSetting(End(self.end), self.round_limit, self.prompt, self.action_format)

    def environment_sources(self) -> dict[str, Any]:
        """Return what the environment's code adds to a record, see :func:`rlprm.components.user_sources`."""
        return user_sources(environment=envs.load(self.environment))


@dataclass
class PolicyConfig(ChatConfig, TaskConfig, LoadingConfig):
    """Settings of every stage in which a policy acts."""

    model: str = setting(
        "", "The policy: a folder (made by rlprm sft) or a hub id.", required=True, group=_POLICY
    )
    temperature: float = setting(1.0, "Sampling temperature; 0 is greedy.", least=0, group=_POLICY)
    max_new_tokens: int = setting(
        32, "Longest action, in tokens, its closing token included.", least=1, group=_POLICY
    )
    max_thinking_tokens: int | None = setting(
        None,
        "Longest thought, in tokens, after which its end is written for the model; no limit if unset.",
        least=1, group=_POLICY, recorded="changed",
    )  # fmt: skip
    context_length: int | None = setting(
        None, "Longest conversation in tokens; the model's own if unset.", least=1, group=_POLICY
    )
    reuse_cache: bool = setting(
        True, "Keep keys and values across turns; false is the slow reference.", group=_POLICY
    )
    wave_size: int = setting(
        256, "Most episodes that run side by side; see also wave_tokens.", least=1, group=_POLICY
    )
    wave_tokens: int | None = setting(
        None,
        "Most tokens of the episodes that run side by side in this process, each counted as context_length; "
        "262,144 on a CPU and 2,097,152 on a GPU if unset.",
        least=1, group=_POLICY, recorded="never",
    )  # fmt: skip
    dtype: str = setting(
        "auto",
        "Weights of the policy.",
        choices=("auto", "float32", "bfloat16", "float16"),
        group=_POLICY,
    )
    seed: int = setting(0, "Seed of all sampling.", least=0, group=_POLICY)
    server: list[str] = setting(
        [],
        "Addresses of vLLM servers that hold the model, such as http://127.0.0.1:8000; the model is loaded "
        "here if unset. An API key is read from the environment variable VLLM_API_KEY.",
        group=_SERVER, recorded="whether",
    )  # fmt: skip
    server_timeout: float = setting(
        600.0, "Seconds that a server has for one answer.", above=0, group=_SERVER, recorded="never"
    )
    server_patience: float = setting(
        300.0, "Seconds without any server after which the stage ends; it can be resumed.",
        above=0, group=_SERVER, recorded="never",
    )  # fmt: skip

    endpoint: str = setting(
        "",
        "Base address of an OpenAI-compatible chat endpoint, such as https://host/v1, that acts instead of "
        "model, which then names the tokenizer alone. A key is read from the environment variable "
        "OPENAI_API_KEY.",
        group=_ENDPOINT, recorded="whether",
    )  # fmt: skip
    endpoint_model: str = setting(
        "", "Name of the model at the endpoint.", group=_ENDPOINT, recorded="changed"
    )
    endpoint_kwargs: dict[str, Any] = setting(
        {},
        "More parameters that are sent to the endpoint as they are, e.g. endpoint_kwargs.reasoning_effort.",
        group=_ENDPOINT, recorded="changed",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check the settings, and that those of an endpoint agree.

        Raises:
            ConfigError: naming the setting, what was received and what is allowed.
        """
        super().__post_init__()
        if not self.endpoint:
            if self.endpoint_model or self.endpoint_kwargs:
                name = "endpoint_model" if self.endpoint_model else "endpoint_kwargs"
                raise ConfigError(f"{name}: needs the address of an endpoint; set endpoint, or unset {name}")
            return
        check_address(self.endpoint)
        check_kwargs(self.endpoint_kwargs)
        if not self.endpoint_model:
            raise ConfigError("endpoint_model: nothing given, allowed: the name of a model at the endpoint")
        if self.server:
            raise ConfigError("endpoint: excludes server (vLLM servers with the policy's weights); set one")
        if self.max_thinking_tokens is not None:
            raise ConfigError(
                f"max_thinking_tokens: got {self.max_thinking_tokens}, allowed with endpoint: unset (an "
                "endpoint ends thoughts itself; some take endpoint_kwargs.reasoning_effort)"
            )

    def unused(self) -> dict[str, str]:
        """Return settings without effect, see :meth:`rlprm.runtime.settings.Settings.unused`."""
        found = super().unused()
        if self.endpoint:
            found |= {"reuse_cache": "endpoint", "wave_tokens": "endpoint"}
        return found

    def policy_revision(self) -> str:
        """Return what identifies the policy: its weights, or the endpoint's model and parameters.

        Raises:
            ArtifactError: if there are no weights.
        """
        from rlprm.models.loading import revision_of

        if not self.endpoint:
            return revision_of(self.model)
        kwargs = json.dumps(self.endpoint_kwargs, sort_keys=True, default=str)
        digest = f"-{hashlib.sha256(kwargs.encode()).hexdigest()[:8]}" if self.endpoint_kwargs else ""
        return f"endpoint:{self.endpoint_model}{digest}"

    def policy_folder(self) -> str:
        """Return the model whose files belong to the record of a run; with an endpoint, of a tokenizer alone.

        Raises:
            ArtifactError: if it is missing.
        """
        from rlprm.models.hub.download import tokenizer_folder

        return str(tokenizer_folder(self.model)) if self.endpoint else self.model

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

    def collection_meta(self, policy: LoadedPolicy) -> dict[str, object]:
        """Return what is stored with this policy's episodes beside what :func:`collect` knows itself."""
        # Collections from before the setting have no such entry.
        limit = self.max_thinking_tokens
        return {
            **({} if limit is None else {"max_thinking_tokens": limit}),
            "environment": self.environment,
            "env_kwargs": self.env_kwargs,
            **self.environment_sources(),
            # Waves of several engines or precisions would be of several policies.
            **policy.backend,
            **self._endpoint_meta(),
        }

    def estimates_meta(self, policy: LoadedPolicy) -> dict[str, object]:
        """Return what tells estimates of this policy from those of another engine or precision of a server.

        Nothing for a policy in the process, whose ``dtype`` is a setting.
        """
        return {"backend": dict(policy.backend)} if self.server or self.endpoint else {}

    def _endpoint_meta(self) -> dict[str, object]:
        if not self.endpoint:
            return {}
        kwargs = {"endpoint_kwargs": self.endpoint_kwargs} if self.endpoint_kwargs else {}
        return {"endpoint_model": self.endpoint_model, **kwargs, "exact": False}

    def require_positions(self) -> None:
        """Refuse conversations longer than the model has positions for.

        Raises:
            ConfigError: naming both lengths.
        """
        from rlprm.models.loading import context_length_of

        own = context_length_of(self.model)
        if self.context_length is not None and self.context_length > own:
            raise ConfigError(f"context_length: got {self.context_length}, allowed: up to the model's {own}")

    def load_policy(self) -> LoadedPolicy:
        """Load the policy, or look for it on its servers or its endpoint.

        Raises:
            ArtifactError: if it is missing.
            ChatTemplateError: if its chat template cannot be used.
            ConfigError: see :meth:`require_positions`; for a limit of thoughts that does not fit the model;
                for a server that cannot be used.
            MismatchError: if a server has other weights.
            ServersGoneError: if no server answers.
        """
        # Imported here, so that settings are parsed and checked without torch.
        from rlprm.data.rendering import ChatRenderer
        from rlprm.models.loading import load_causal_lm, revision_of
        from rlprm.policies.hf import HFPolicy

        if self.endpoint:
            return self.connect_to_endpoint()
        self.require_positions()
        if self.server:
            return self.connect()
        return HFPolicy(
            load_causal_lm(self.model, dtype=self.dtype),
            ChatRenderer(self.load_tokenizer(self.model)),
            revision=revision_of(self.model),
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            context_length=self.context_length,
            reuse_cache=self.reuse_cache,
            max_thinking_tokens=self.max_thinking_tokens,
            wave_tokens=self.wave_tokens,
        )

    def connect(self, *, check_weights: bool = True) -> ServerPolicy:
        """Look for the policy on its servers; see :meth:`load_policy`.

        Args:
            check_weights: see :func:`rlprm.policies.server.served.look_at`.
        """
        from rlprm.data.rendering import ChatRenderer
        from rlprm.models.generation import ends_of, model_without_weights
        from rlprm.models.loading import context_length_of, revision_of
        from rlprm.policies.server.client import Patience, Servers
        from rlprm.policies.server.policy import ServerPolicy
        from rlprm.policies.server.served import look_at

        model = model_without_weights(self.model)
        patience = Patience(timeout=self.server_timeout, without_server=self.server_patience)
        renderer = ChatRenderer(self.load_tokenizer(self.model)).stopping_at(ends_of(model))
        context_length = self.context_length or context_length_of(self.model)
        servers = Servers(self.server, key=os.environ.get("VLLM_API_KEY"), patience=patience)
        served = look_at(
            servers, self.model, prompt=renderer.action_ids("x"), context_length=context_length,
            check_weights=check_weights,
        )  # fmt: skip
        return ServerPolicy(
            servers,
            served,
            renderer,
            model=model,
            revision=revision_of(self.model),
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            context_length=context_length,
            max_thinking_tokens=self.max_thinking_tokens,
        )

    def connect_to_endpoint(self) -> EndpointPolicy:
        """Return a policy behind the endpoint; nothing is sent yet.

        Raises:
            ArtifactError: if the tokenizer is missing.
            ChatTemplateError: if its chat template cannot be used.
            ConfigError: if no context length is known, or the key is no key.
        """
        from rlprm.data.rendering import ChatRenderer
        from rlprm.models.generation import ends_in_file
        from rlprm.models.loading import context_length_of
        from rlprm.policies.openai.policy import EndpointPolicy, kind_of
        from rlprm.policies.server.client import Patience, Servers

        folder = self.policy_folder()
        context_length = self.context_length
        if context_length is None:
            if not (Path(folder) / "config.json").is_file():
                raise ConfigError(
                    f"context_length: nothing given, and {self.model!r} has no config.json; set it to the "
                    "longest conversation in tokens of that tokenizer"
                )
            context_length = context_length_of(folder)
        patience = Patience(timeout=self.server_timeout, without_server=self.server_patience)
        return EndpointPolicy(
            Servers(
                [self.endpoint],
                key=check_key(os.environ.get(KEY)),
                patience=patience,
                kind=kind_of(self.endpoint),
            ),
            name=self.endpoint_model,
            kwargs=self.endpoint_kwargs,
            renderer=ChatRenderer(self.load_tokenizer(folder)).stopping_at(ends_in_file(folder)),
            revision=self.policy_revision(),
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            context_length=context_length,
        )
