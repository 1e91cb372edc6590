"""How many weights a model has, read off the lists of shapes in its files; no weight is loaded."""

from __future__ import annotations

import json
import math
from pathlib import Path

from safetensors import SafetensorError, safe_open

from rlprm.models.hub.download import model_folder
from rlprm.models.hub.weight_files import weight_files

__all__ = ["count_weights"]


def count_weights(path: str) -> int:
    """Return the number of weights in the files of a model, tied ones once; 0 if there are no files.

    Files of PyTorch's own format have no list of shapes. The configuration says how many bytes a weight has.

    Args:
        path: folder or hub id.

    Raises:
        ArtifactError: if there is no such model.
    """
    count, folder = 0, model_folder(path)
    for file in weight_files(folder):
        if file.suffix == ".safetensors":
            count += sum(math.prod(shape) for shape in _shapes(file))
        else:
            count += file.stat().st_size // _bytes_of_a_weight(folder)
    return count


def _bytes_of_a_weight(folder: Path) -> int:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        name = str(config.get("dtype") or config.get("torch_dtype"))
    except (OSError, ValueError, AttributeError):
        name = ""
    return 2 if "16" in name else 4


def _shapes(file: Path) -> list[list[int]]:
    try:
        with safe_open(file, framework="pt") as stored:
            return [stored.get_slice(name).get_shape() for name in stored.keys()]  # noqa: SIM118
    except SafetensorError:
        return []  # damaged; loading reports it
