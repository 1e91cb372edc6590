"""How many weights a model has, read off the lists of shapes in its files; no weight is loaded."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

from rlprm.models.hub.download import model_folder
from rlprm.models.hub.weight_files import weight_files

__all__ = ["count_weights"]


def count_weights(path: str) -> int:
    """Return the number of weights in the files of a model, tied ones once; 0 if there are no files.

    Files of PyTorch's own format have no list of shapes. Four bytes count as a weight there.

    Args:
        path: folder or hub id.

    Raises:
        ArtifactError: if there is no such model.
    """
    count = 0
    for file in weight_files(model_folder(path)):
        if file.suffix == ".safetensors":
            count += sum(math.prod(shape) for shape in _shapes(file))
        else:
            count += file.stat().st_size // 4
    return count


def _shapes(file: Path) -> list[list[int]]:
    with file.open("rb") as stream:
        try:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
            return [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
        except (struct.error, ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError):
            return []  # damaged; loading reports it
