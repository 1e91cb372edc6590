"""The line that starts a vLLM server as this package needs it.

Each flag has its reason.

``--enable-scale-out``: token ids in, token ids and log-probabilities out.
``--logprobs-mode processed_logprobs``: those of the sampling distribution.
``--generation-config vllm``: no sampling parameters of the model's own.
``VLLM_SERVER_DEV_MODE``: weights can be replaced and checked.
``--no-enable-chunked-prefill``, on a CPU: seeded requests would end the engine otherwise.
``--dtype float32 --enforce-eager``, on a CPU: equal numbers in any batch.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from rlprm.serving.vllm_settings import ServeConfig

__all__ = ["Line", "line_of", "url_of"]

_EXTENSION = Path(__file__).with_name("vllm_extension")
_BATCHED = 32_768
"""Tokens that a CPU reads at once, at least as many as a conversation may have."""


class Line:
    """A command and the environment variables it adds."""

    def __init__(self, words: list[str], variables: Mapping[str, str]) -> None:
        self.words, self.variables = words, dict(variables)

    def __str__(self) -> str:
        pairs = [f"{name}={shlex.quote(value)}" for name, value in self.variables.items()]
        return " ".join([*pairs, shlex.join(self.words)])


def url_of(config: ServeConfig, number: int) -> str:
    """Return the address of a server for clients on this machine."""
    host = "127.0.0.1" if config.host in ("0.0.0.0", "::") else config.host
    return f"http://{host}:{config.port + number}"


def line_of(
    config: ServeConfig, number: int, *, python: str, model: str, context_length: int | None, on_gpu: bool
) -> Line:
    """Return the line of a server.

    Args:
        config: settings.
        number: of the server, from 0.
        python: interpreter of vLLM's environment.
        model: folder or hub id.
        context_length: most tokens of a conversation; the model's own limit if None.
        on_gpu: whether the server has a GPU.
    """
    dtype = config.dtype if on_gpu or config.dtype != "auto" else "float32"
    words = [
        python, "-m", "vllm.entrypoints.openai.api_server",
        "--model", model, "--host", config.host, "--port", str(config.port + number),
        "--dtype", dtype, *(["--max-model-len", str(context_length)] if context_length else []),
        "--enable-scale-out", "--logprobs-mode", "processed_logprobs", "--generation-config", "vllm",
        "--enable-prompt-tokens-details", "--worker-extension-cls", "rlprm_vllm.Worker",
    ]  # fmt: skip
    variables = {
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "PYTHONPATH": str(_EXTENSION),
    }
    if on_gpu:
        words += ["--gpu-memory-utilization", f"{config.gpu_memory_utilization:g}"]
        variables["CUDA_VISIBLE_DEVICES"] = str(config.first_gpu + number)
    else:
        words += [
            "--enforce-eager", "--no-enable-chunked-prefill", "--block-size", "32",
            "--max-num-batched-tokens", str(max(_BATCHED, context_length or 0)),
        ]  # fmt: skip
        variables |= {
            "VLLM_CPU_KVCACHE_SPACE": str(config.cpu_cache_gib),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        }
    if config.lora_r:
        words += ["--enable-lora", "--max-lora-rank", str(_rank(config.lora_r))]
        variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    if config.trust_remote_code:
        words.append("--trust-remote-code")
    return Line(words, variables)


def _rank(wanted: int) -> int:
    """Return the smallest rank that vLLM has room for, at least the wanted one."""
    return next((rank for rank in (8, 16, 32, 64, 128, 256, 320, 512) if rank >= wanted), wanted)
