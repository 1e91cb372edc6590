"""The precision that ``auto`` stands for: bfloat16 where a processor computes faster in it, else float32."""

from __future__ import annotations

import logging
from functools import lru_cache

import torch

from rlprm.errors import ArtifactError, ConfigError
from rlprm.models.hub.size import count_weights

__all__ = ["SMALL", "computes_in_bfloat16", "resolve_dtype"]

log = logging.getLogger(__name__)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SMALL = 50_000_000
"""Weights below which a CPU computes in float32: little time is to be won, and rounding stays out."""


def resolve_dtype(name: str, path: str | None = None) -> torch.dtype:
    """Return the torch dtype of a name; for ``"auto"`` see :func:`computes_in_bfloat16`.

    Args:
        name: of a dtype, or ``auto``.
        path: folder or hub id of the model; None for a small one.

    Raises:
        ConfigError: for an unknown name.
    """
    if name == "auto":
        return torch.bfloat16 if computes_in_bfloat16(path) else torch.float32
    if name not in _DTYPES:
        raise ConfigError(f"unknown dtype {name!r}; known: auto, {', '.join(_DTYPES)}")
    return _DTYPES[name]


def computes_in_bfloat16(path: str | None) -> bool:
    """Return whether a model computes in bfloat16 unless a setting says otherwise.

    On a GPU that has bfloat16 every model does. On a CPU a model of 50 million weights or more does if the
    processor has instructions for bfloat16 (AMX, AVX512-BF16, Arm's BF16); this is said once.

    Args:
        path: folder or hub id of the model; None for a small one that is yet to be made.
    """
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    instructions = _instructions_for_bfloat16()
    if path is None or instructions is None:
        return False
    try:
        weights = count_weights(path)
    except ArtifactError:
        return False  # loading reports it
    if weights < SMALL:
        return False
    _say_once(path, weights, instructions)
    return True


def _instructions_for_bfloat16() -> str | None:
    """Return the name of this processor's instructions for bfloat16; None without."""
    known = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16", "bf16": "BF16", "arm_bf16": "BF16"}
    if hasattr(torch.cpu, "get_capabilities"):
        has = torch.cpu.get_capabilities()
    else:
        has = {"avx512_bf16": torch.cpu._is_avx512_bf16_supported()}
    return next((name for key, name in known.items() if has.get(key)), None)


@lru_cache
def _say_once(path: str, weights: int, instructions: str) -> None:
    log.info(
        "%s has %d million weights and computes in bfloat16, because this processor has %s; "
        "dtype float32 (in training bf16 false) is exact and slower",
        path, round(weights / 1e6), instructions,
    )  # fmt: skip
