"""Settings of ``rlprm serve-prm``; without torch, so that help is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rlprm.runtime.settings import setting
from rlprm.runtime.tuning import LoadingConfig
from rlprm.scorers._connection import api_key_of

__all__ = ["ServePRMConfig"]

_ADDRESS = "Address"
_LIMITS = "Limits of a request"
_WORK = "Work"


@dataclass
class ServePRMConfig(LoadingConfig):
    """Settings of ``rlprm serve-prm``."""

    STAGE: ClassVar[str] = "serve-prm"
    MODEL: ClassVar[str] = "prm"

    prm: str = setting("", "Folder or hub id of a trained PRM or ORM.", required=True)
    dtype: str = setting("auto", "Weights of the PRM.", choices=("auto", "float32", "bfloat16", "float16"))
    host: str = setting(
        "127.0.0.1", "Address to listen on; 0.0.0.0 for all of the machine's.", required=True, group=_ADDRESS
    )
    port: int = setting(8001, "Port to listen on; 0: a free one.", least=0, most=65_535, group=_ADDRESS)
    api_key_env: str = setting(
        "",
        "Environment variable with the key that requests must have (Authorization: Bearer KEY); none if "
        "empty.",
        group=_ADDRESS,
    )
    max_body: int = setting(8_388_608, "Bytes of a body.", least=1_024, group=_LIMITS)
    max_trajectories: int = setting(2_048, "Trajectories of a request.", least=1, group=_LIMITS)
    max_steps: int = setting(512, "Steps of a trajectory.", least=1, group=_LIMITS)
    max_tokens: int | None = setting(
        None, "Tokens of a trajectory; the PRM's context if unset.", least=2, group=_LIMITS
    )
    timeout: float = setting(60.0, "Seconds until a request is given up.", above=0, group=_LIMITS)
    max_queue: int = setting(
        256, "Requests that are read, wait or are scored at the same time.", least=1, group=_WORK
    )
    token_budget: int = setting(
        16_384, "Padded tokens of one forward, which trajectories of several requests share.", least=1,
        group=_WORK,
    )  # fmt: skip
    search_tokens: int = setting(
        524_288,
        "Padded tokens whose keys and values are kept for searches, all searches together; 0: none.",
        least=0,
        group=_WORK,
    )

    def __post_init__(self) -> None:
        """Check the settings; the variable of the key must hold one.

        Raises:
            ConfigError: naming the setting, what was received and what is allowed. It never repeats a key.
        """
        super().__post_init__()
        api_key_of(self.api_key_env)
