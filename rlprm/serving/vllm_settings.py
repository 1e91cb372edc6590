"""Settings of ``rlprm serve``; without model libraries, so that help is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rlprm.runtime.settings import Settings, setting

__all__ = ["ServeConfig"]

_MODEL, _SERVER = "Model", "Server"


@dataclass
class ServeConfig(Settings):
    """Settings of ``rlprm serve``. A recipe of any stage may be given: its model and limits are taken."""

    STAGE: ClassVar[str] = "serve"
    OF_ANY_STAGE: ClassVar[bool] = True

    model: str = setting("", "The policy: a folder or a hub id.", required=True, group=_MODEL)
    context_length: int | None = setting(
        None, "Longest conversation in tokens; the model's own if unset.", least=1, group=_MODEL
    )
    dtype: str = setting(
        "auto", "Of the computation; auto: float32 on CPUs, the model's own on GPUs.",
        choices=("auto", "float32", "bfloat16", "float16"), group=_MODEL,
    )  # fmt: skip
    lora_r: int = setting(
        0, "Largest rank of adapters that are loaded while the server runs; 0: none.", least=0, group=_MODEL
    )
    trust_remote_code: bool = setting(False, "Run Python code that lies beside the weights.", group=_MODEL)
    host: str = setting(
        "127.0.0.1", "Address to listen on; other machines reach the server if it is not loopback.",
        group=_SERVER,
    )  # fmt: skip
    port: int = setting(
        8000, "Port of the first server; the others follow.", least=1, most=65535, group=_SERVER
    )
    servers: int = setting(
        1, "Servers, each with a GPU of its own if there are GPUs.", least=1, group=_SERVER
    )
    first_gpu: int = setting(0, "GPU of the first server.", least=0, group=_SERVER)
    gpu_memory_utilization: float = setting(
        0.9, "Share of a GPU's memory for a server; less if a trainer shares it.",
        above=0, most=1, group=_SERVER,
    )  # fmt: skip
    cpu_cache_gib: int = setting(4, "GiB of keys and values of a server on CPUs.", least=1, group=_SERVER)
    vllm_python: str = setting(
        "",
        "Python of the environment that has vLLM 0.32 or newer; .venv-vllm/bin/python if there is one, else "
        "this one.",
        group=_SERVER,
    )  # fmt: skip
    start_timeout: float = setting(900.0, "Seconds until a server must answer.", above=0, group=_SERVER)
    dry_run: bool = setting(False, "Print the lines that start the servers, and start none.", group=_SERVER)
    log_dir: str = setting("runs/serve", "Where the logs of the servers go.", group=_SERVER)
