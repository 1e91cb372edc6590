"""Moving the tensors of one model to host memory while another model needs the accelerator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, UntypedStorage, nn

__all__ = ["emptied", "in_host_memory", "tensors_of"]


def tensors_of(model: nn.Module) -> Iterator[Tensor]:
    """Yield weights and buffers; of weights that ZeRO-3 has split, this process's share."""
    for parameter in model.parameters():
        yield getattr(parameter, "ds_tensor", parameter)
    yield from model.buffers()


@contextmanager
def in_host_memory(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Keep tensors of an accelerator in host memory within a block; tensors on the CPU stay.

    The memory that they had is free within the block.
    """
    with emptied(tensor for tensor in tensors if tensor.device.type != "cpu"):
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        yield


@contextmanager
def emptied(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Free the storage of tensors within a block, and bring back the same bytes at its end.

    The tensors stay the same objects on the same device: views, tied weights and flat buffers keep sharing
    their storage. A parameter whose ``data`` moved to another device would lose the hook through which DDP
    averages its gradient, without a message.
    """
    storages = {storage._cdata: storage for storage in (t.untyped_storage() for t in tensors)}
    kept: list[tuple[UntypedStorage, UntypedStorage]] = []
    try:
        for storage in storages.values():
            copy = UntypedStorage(storage.nbytes())  # type: ignore[no-untyped-call]
            copy.copy_(storage)
            storage.resize_(0)
            kept.append((storage, copy))
        yield
    finally:
        for storage, copy in kept:
            storage.resize_(copy.nbytes())
            storage.copy_(copy)
