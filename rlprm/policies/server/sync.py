"""New weights for servers: files that the servers see, and requests that let the servers read them.

Adapters are loaded under a name of their own for each version, so that no token can be of another one. Full
weights replace those of the server. The keys and values of the old weights must go with them: a server that
keeps its prefix cache writes with a mixture of both, without a word.

With several servers, one that cannot be reached is left out, and gets the weights of a later call.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor

from rlprm.errors import ConfigError, ServersGoneError
from rlprm.policies.server.client import RequestFailedError, Server, Servers, UnreachableError
from rlprm.runtime.files import write_json

__all__ = ["REPACK", "push_adapter", "push_weights", "write_folder", "write_weights"]

REPACK = "rlprm_repack"
"""Method of the worker extension that ``rlprm serve`` starts a server with (``serving/vllm_extension``)."""
_SHARD = 4 << 30


def write_weights(weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write weights as safetensors, aside first, and under their name when all are there.

    Args:
        weights: by their names in a checkpoint. Of tied weights, which are one tensor, the first is written.
        folder: is replaced.
    """
    first = {id(weight): name for name, weight in reversed(list(weights.items()))}
    own = {name: weight.contiguous() for name, weight in weights.items() if first[id(weight)] == name}
    write_folder(folder, lambda aside: _write_shards(own, aside))


def _write_shards(weights: Mapping[str, Tensor], folder: Path) -> None:
    shards = split_torch_state_dict_into_shards(dict(weights), max_shard_size=_SHARD)
    for file, names in shards.filename_to_tensors.items():
        save_file({name: weights[name] for name in names}, folder / file, metadata={"format": "pt"})
    if shards.is_sharded:
        index = {"metadata": shards.metadata, "weight_map": shards.tensor_to_filename}
        write_json(folder / "model.safetensors.index.json", index)


def write_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Fill a folder under another name, and rename it when it is whole."""
    aside = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write(aside)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


async def push_weights(
    servers: Servers, folder: Path, version: str, *, only_where_missing: bool = False
) -> None:
    """Let every server read its weights from a folder; nothing may be in flight.

    Args:
        servers: all of them.
        folder: seen by the servers under the same path.
        version: that the tokens of these weights are marked with.
        only_where_missing: leave servers alone that say that they have this version.

    Raises:
        ConfigError: if a server does not allow it.
        ServersGoneError: if no server could be reached for too long.
    """
    if not folder.is_dir():  # a server that reads from nowhere dies
        raise ConfigError(f"no weights for the servers at {str(folder)!r}")
    path = str(folder.resolve())

    async def push(server: Server) -> None:
        if only_where_missing:
            info = await servers.get(server, "/weight_info", waits=False)
            if isinstance(info, dict) and info.get("weight_version") == version:
                return
        while True:
            returns = server.returns
            await _replace(servers, server, path, version)
            if server.returns == returns:  # a server that was restarted meanwhile has its first weights again
                return

    await _everywhere(servers, push)


async def _replace(servers: Servers, server: Server, path: str, version: str) -> None:
    await _post(servers, server, "/pause?mode=wait")  # the default would abort what another run asked for
    try:
        await _call(servers, server, "reload_weights", weights_path=path)
        if await _is_on_cpu(servers, server):
            await _call(servers, server, REPACK)
        await _post(servers, server, "/reset_prefix_cache")
        await _post(servers, server, "/update_weight_version", {"new_version": version})
    finally:
        await _post(servers, server, "/resume", may_fail=True)


async def _everywhere(servers: Servers, push: Callable[[Server], Awaitable[None]]) -> None:
    """Push to every server, and only then raise what failed: none is left in the middle.

    A server that cannot be reached is left out if others can.
    """
    results = await asyncio.gather(*(push(server) for server in servers.all), return_exceptions=True)
    for server, result in zip(servers.all, results, strict=True):
        if isinstance(result, UnreachableError):
            continue
        if isinstance(result, BaseException):
            raise result
        server.has_weights = True
    for server, result in zip(servers.all, results, strict=True):
        if isinstance(result, UnreachableError) and not servers.leave_out(server, str(result)):
            raise ServersGoneError(f"no server took new weights: {result}; run the same command again")


async def push_adapter(servers: Servers, folder: Path, name: str, *, before: str | None) -> None:
    """Let every server load an adapter; requests name it as their model.

    Args:
        servers: all of them.
        folder: of the adapter, as peft saves one; seen by the servers under the same path.
        name: of this version.
        before: an adapter that is unloaded first.

    Raises:
        ConfigError: if a server does not load adapters while it runs.
        ServersGoneError: if no server could be reached for too long.
    """

    async def push(server: Server) -> None:
        if before is not None:
            await _post(servers, server, "/v1/unload_lora_adapter", {"lora_name": before}, may_fail=True)
        request = {"lora_name": name, "lora_path": str(folder.resolve()), "load_inplace": True}
        await _post(servers, server, "/v1/load_lora_adapter", request, may_fail=False)

    await _everywhere(servers, push)


async def _is_on_cpu(servers: Servers, server: Server) -> bool:
    info = await servers.get(server, "/server_info?config_format=json", waits=False)
    try:
        return "cpu" in str(info["vllm_config"]["device_config"]).lower()
    except (KeyError, TypeError):
        return False


async def _call(servers: Servers, server: Server, method: str, **arguments: Any) -> None:
    await _post(servers, server, "/collective_rpc", {"method": method, "kwargs": arguments})


async def _post(
    servers: Servers, server: Server, path: str, body: Any = None, *, may_fail: bool = False
) -> None:
    try:
        await servers.ask(path, body or {}, str, server=server, elsewhere=False, waits=False, as_text=True)
    except RequestFailedError as error:
        if not may_fail:
            raise ConfigError(
                f"server: {server.url} did not take new weights ({error}); start it as rlprm serve does, "
                "with VLLM_SERVER_DEV_MODE=1, or for adapters with --enable-lora, --max-lora-rank and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"
            ) from None
