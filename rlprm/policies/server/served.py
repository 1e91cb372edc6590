"""What stands behind an address: which model, how it computes, and whether its probabilities can be used."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from rlprm.errors import ConfigError, MismatchError
from rlprm.models.hub.download import model_folder
from rlprm.models.hub.weight_files import weight_files
from rlprm.models.loading import revision_of
from rlprm.policies.server.client import BadAnswerError, RequestFailedError, Server, Servers, printable
from rlprm.policies.server.generate import PATH, generate_request, read_generated, sampling_params

__all__ = ["FIRST_VERSION", "Served", "look_at"]

log = logging.getLogger(__name__)
_EMPTY = hashlib.sha256().hexdigest()
_ALONE = re.compile(r"\.(o_proj|down_proj)\.weight$")
"""Matrices that servers do not fuse with others."""
FIRST_VERSION = "default"
"""vLLM's name for the weights that a server was started with."""
_COLD = 0.5
"""A temperature at which raw log-probabilities differ from those of the sampling distribution."""


@dataclass(frozen=True)
class Served:
    """What a server says about itself."""

    model: str
    """Name that requests must use."""
    max_model_len: int
    """Most tokens of a conversation."""
    engine: str
    """Such as ``vllm 0.32.0``."""
    dtype: str
    """Of the computation; ``unknown`` if the server does not say."""
    root: str = ""
    """Where the server has the model from: a folder or a hub id."""
    version: str | None = None
    """Of the weights; None if the server does not say."""

    @property
    def torch_dtype(self) -> torch.dtype | None:
        """The precision; None if it is not known."""
        found = getattr(torch, self.dtype, None)
        return found if isinstance(found, torch.dtype) else None


def look_at(
    servers: Servers, path: str, *, prompt: Sequence[int], context_length: int, check_weights: bool = True
) -> Served:
    """Look at what servers serve, which must be the same.

    Args:
        servers: one or several.
        path: folder or hub id of the model that they should serve.
        prompt: a few tokens, to sample behind.
        context_length: most tokens of a conversation.
        check_weights: refuse servers with other weights; False if they get new ones before they act.

    Raises:
        ConfigError: if a server cannot be used, or its context is too short.
        MismatchError: if the servers differ, or have other weights.
        ServersGoneError: if no server could be reached for too long.
    """

    async def look() -> list[Served]:
        found = []
        for server in servers.all:
            await _refuse_paused(servers, server, may_resume=not check_weights)
            one = await _examine(servers, server)
            await _require_processed_logprobs(servers, server, one.model, prompt)
            if check_weights:
                await _refuse_other_weights(servers, server, one, path)
            found.append(one)
        return found

    try:
        found = servers.run(look())
    except RequestFailedError as error:
        raise ConfigError(f"server: {error}") from None
    for server, one in zip(servers.all, found, strict=True):
        if _compared(one, check_weights) != _compared(found[0], check_weights):
            raise MismatchError(
                f"server: {servers.all[0].url} has {_words(found[0])}, {server.url} has {_words(one)}"
            )
        if one.max_model_len < context_length:
            raise ConfigError(
                f"context_length: got {context_length}, allowed: up to {one.max_model_len}, which "
                f"{server.url} serves"
            )
    return found[0]


def _compared(served: Served, check_weights: bool) -> Served:
    """Return what servers must agree in."""
    version = served.version if check_weights else None
    return replace(served, max_model_len=0, root="", version=version)


def _words(served: Served) -> str:
    return f"{served.engine}, {served.model}, {served.dtype}, weights {served.version}"


async def _examine(servers: Servers, server: Server) -> Served:
    """Ask a server what it serves.

    Raises:
        ConfigError: if the server has no endpoint for token ids, or serves several models.
    """
    listed, version = await servers.get(server, "/v1/models"), await servers.get(server, "/version")
    try:
        base = [entry for entry in listed["data"] if entry.get("parent") is None]
        names, lengths = [str(entry["id"]) for entry in base], [int(entry["max_model_len"]) for entry in base]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ConfigError(f"server: {server.url} does not say which model it serves, as vLLM does") from None
    if len(names) != 1:
        raise ConfigError(f"server: {server.url} serves {len(names)} models, allowed: one")
    number = version.get("version", "?") if isinstance(version, dict) else "?"
    info = await servers.get(server, "/weight_info")
    return Served(
        names[0],
        lengths[0],
        f"vllm {printable(str(number), 40)}",
        await _dtype(servers, server),
        str(base[0].get("root") or ""),
        str(info["weight_version"]) if isinstance(info, dict) and "weight_version" in info else None,
    )


async def _refuse_paused(servers: Servers, server: Server, *, may_resume: bool) -> None:
    """Notice a server that answers nothing, because a run that handed on weights was interrupted.

    Args:
        servers: all of them.
        server: to examine.
        may_resume: resume it, since new weights come before anything is sampled.

    Raises:
        ConfigError: if it is paused.
    """
    paused = await servers.get(server, "/is_paused")
    if not (isinstance(paused, dict) and paused.get("is_paused")):
        return
    if not may_resume:
        raise ConfigError(
            f"server: {server.url} is paused: a run hands on weights, or was interrupted while it did; start "
            "the server again"
        )
    log.warning("%s is paused; resuming it", server.url)
    await servers.ask("/resume", {}, str, server=server, elsewhere=False, as_text=True)


async def _dtype(servers: Servers, server: Server) -> str:
    """Return the precision; development servers (VLLM_SERVER_DEV_MODE) say it."""
    info = await servers.get(server, "/server_info?config_format=json")
    try:
        return str(info["vllm_config"]["model_config"]["dtype"]).removeprefix("torch.")
    except (KeyError, TypeError):
        return "unknown"


async def _require_processed_logprobs(
    servers: Servers, server: Server, model: str, prompt: Sequence[int]
) -> None:
    """Refuse a server whose log-probabilities are not those of the sampling distribution.

    At temperature T the log-probabilities of two tokens differ by 1/T of what they differ by at temperature
    1. Raw log-probabilities do not depend on the temperature.

    Args:
        servers: all of them.
        server: to examine.
        model: name of the model there.
        prompt: a few tokens.

    Raises:
        ConfigError: if they are raw, or the server has no endpoint for token ids.
    """
    warm, cold = [await _leading(servers, server, model, prompt, t) for t in (1.0, _COLD)]
    both = sorted(warm.keys() & cold.keys(), key=lambda token: warm[token])
    if len(both) < 2 or warm[both[-1]] - warm[both[0]] < 0.01:
        return  # nearly uniform: raw and processed log-probabilities are the same
    ratio = (cold[both[-1]] - cold[both[0]]) / (warm[both[-1]] - warm[both[0]])
    if abs(ratio * _COLD - 1) > 0.2:
        raise ConfigError(
            f"server: {server.url} gives log-probabilities that are not those of the sampling distribution "
            f"(at temperature {_COLD} they spread {ratio:.2f} times as far as at 1, not {1 / _COLD:.2f}); "
            "start it with --logprobs-mode processed_logprobs"
        )


async def _leading(
    servers: Servers, server: Server, model: str, prompt: Sequence[int], temperature: float
) -> Mapping[int, float]:
    """Return the log-probabilities of the likeliest next tokens."""
    params = sampling_params(temperature=temperature, seed=0, max_tokens=1, stop_ids=(), logprobs=8)

    def read(answer: Any) -> dict[int, float]:
        read_generated(answer, max_tokens=1, stop_ids=())
        try:
            top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            return {int(entry["token_id"]): float(entry["logprob"]) for entry in top}
        except (KeyError, TypeError, ValueError):
            raise BadAnswerError("the answer lacks the likeliest tokens") from None

    try:
        found, _ = await servers.ask(
            PATH, generate_request(model, prompt, params), read, server=server, elsewhere=False
        )
    except RequestFailedError as error:
        raise ConfigError(
            f"server: {server.url} cannot be used ({error}); rlprm serve prints how to start one (vLLM 0.32 "
            "or newer with --enable-scale-out)"
        ) from None
    return found


async def _refuse_other_weights(servers: Servers, server: Server, served: Served, path: str) -> None:
    """Refuse a server that has other weights than a model's files.

    The version tells whether the server still has the weights it was started with. If their folder is seen
    here, its files are compared with the model's. Besides, some weights are compared by their hashes, which
    development servers (VLLM_SERVER_DEV_MODE) give: vectors, and matrices that are neither fused nor packed.

    Args:
        servers: all of them.
        server: to examine.
        served: what it serves.
        path: folder or hub id of the model.

    Raises:
        MismatchError: if the weights differ.
    """
    if served.version not in (None, FIRST_VERSION):
        raise MismatchError(
            f"server: {server.url} has weights of version {printable(served.version or '', 80)}, which a run "
            f"has handed on, not those of {path}; start it again"
        )
    if served.root and Path(served.root).is_dir():
        if revision_of(served.root) != revision_of(path):
            raise MismatchError(
                f"server: {server.url} has the weights of {served.root}, not those of {path}; start it with "
                "this model"
            )
    elif served.root != path.partition("@")[0]:
        log.warning(
            "%s serves %s, and its files are not seen here: whether they are those of %s is checked in part",
            server.url, printable(served.root), path,
        )  # fmt: skip
    try:
        found, _ = await servers.ask(
            "/weight_checker", {"action": "checksum"}, lambda answer: dict(answer["checksums"]),
            server=server, elsewhere=False,
        )  # fmt: skip
    except (RequestFailedError, KeyError, TypeError, ValueError):
        log.info("%s does not hash its weights: they are not compared", server.url)
        return
    theirs = {name.split(":")[-1].replace(".base_layer.", "."): digest for name, digest in found.items()}
    if len(theirs) < len(found):
        return  # split over several processes
    wanted = {name: digest for name, digest in theirs.items() if digest != _EMPTY}
    different = _different(path, wanted, served.torch_dtype)
    if different:
        raise MismatchError(
            f"server: {server.url} has other weights than {path} ({', '.join(different[:3])}"
            f"{' and others' if len(different) > 3 else ''}); start it with this model"
        )


def _different(path: str, theirs: Mapping[str, str], dtype: torch.dtype | None) -> list[str]:
    """Return the names of weights whose hash is another; embeddings may be padded, and are left out."""
    different = []
    for file in weight_files(model_folder(path)):
        if file.suffix != ".safetensors":
            continue
        try:
            with safe_open(file, framework="pt") as stored:
                for name in stored.keys() & theirs.keys():
                    if len(stored.get_slice(name).get_shape()) != 1 and not _ALONE.search(name):
                        continue
                    weight = stored.get_tensor(name).to(dtype=dtype)
                    data = weight.contiguous().view(torch.uint8).numpy().tobytes()
                    if hashlib.sha256(data).hexdigest() != theirs[name]:
                        different.append(name)
        except SafetensorError:
            return []  # damaged; loading reports it
    return sorted(different)
