"""Models of the Hugging Face hub: a hub id stands for the folder of one commit.

Every stage reads a model several times (configuration, tokenizer, weights). A hub id is therefore resolved
once, to the folder of a snapshot, so that all parts come from the same commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from rlprm.errors import ArtifactError, first_line
from rlprm.models.hub.weight_files import missing_shards, weight_files
from rlprm.runtime.hub_names import is_hub_id

__all__ = ["commit_of", "model_folder", "tokenizer_folder"]

_SMALL = ["*.json", "*.jinja", "*.txt", "*.model", "*.py", "*.tiktoken"]
_WEIGHTS = ["*.safetensors"]
_OLD_WEIGHTS = ["pytorch_model*.bin"]
# Copies of the weights in other layouts; what lies in a folder belongs to other libraries, too.
_OTHERS = ["consolidated*", "original/*", "onnx/*", "openvino/*", "gguf/*", "*/*.safetensors", "*/*.bin"]


def model_folder(name: str, what: str = "model") -> Path:
    """Return the folder of a model; a model of the hub is downloaded if the cache does not have it.

    Args:
        name: a folder, a hub id, or a hub id with a revision, ``organisation/name@revision``.
        what: is to be loaded, for messages.

    Raises:
        ArtifactError: if there is no such folder, or the hub does not give the model.
    """
    if name and Path(name).is_dir():
        return Path(name)
    if not is_hub_id(name):
        raise ArtifactError(f"no {what} at {name!r}: {_why_no_folder(name)}")
    # The cache's place is an argument, because tests and servers change it while the process runs.
    return Path(_snapshot(name, constants.HF_HUB_CACHE))


def tokenizer_folder(name: str) -> Path:
    """Return the folder of a tokenizer; of a model of the hub all files but the weights are downloaded.

    Args:
        name: see :func:`model_folder`.

    Raises:
        ArtifactError: if there is no such folder, or the hub does not give it.
    """
    if (name and Path(name).is_dir()) or not is_hub_id(name):
        return model_folder(name, "tokenizer")
    return Path(_small_files(name, constants.HF_HUB_CACHE))


def _why_no_folder(name: str) -> str:
    """Return why a name is neither a folder nor asked of the hub."""
    parent = Path(name.partition("@")[0]).parent
    if name and name[0] not in "./~" and str(parent) != "." and parent.is_dir() and name.count("/") == 1:
        return (
            f"the folder does not exist. The hub was not asked, because there is a folder {str(parent)!r} "
            "here; run from another folder to have the hub's model"
        )
    if name and "/" not in name and not name.startswith((".", "~")):
        return "the folder does not exist; a hub id has an organisation (organisation/name)"
    return "the folder does not exist"


def commit_of(name: str) -> str | None:
    """Return the commit of a hub's model; None for a folder."""
    return model_folder(name).name if is_hub_id(name) else None


@lru_cache
def _small_files(name: str, cache: str) -> str:
    return _download(name, cache, [], "tokenizer")


def _download(name: str, cache: str, weights: Sequence[str], what: str = "model") -> str:
    """Return the folder of a repository's small files and of those whose names match.

    Raises:
        ArtifactError: if the hub does not give them.
    """
    repository, _, revision = name.partition("@")
    try:
        return str(
            snapshot_download(
                repository,
                revision=revision or None,
                cache_dir=cache,
                allow_patterns=[*_SMALL, *weights],
                ignore_patterns=_OTHERS,
            )
        )
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise ArtifactError(
            f"cannot get the {what} {name!r}: {_reason(error, repository, revision)}"
        ) from error


@lru_cache
def _snapshot(name: str, cache: str) -> str:
    repository = name.partition("@")[0]
    folder = _download(name, cache, _WEIGHTS)
    if not weight_files(folder):
        folder = _download(name, cache, _OLD_WEIGHTS)
    if (Path(folder) / "adapter_config.json").is_file() and not (Path(folder) / "config.json").is_file():
        raise ArtifactError(f"cannot use {name!r}: it holds an adapter alone; merge it into its base first")
    if not (Path(folder) / "config.json").is_file():
        raise ArtifactError(f"cannot use {name!r}: it has no config.json, so it is no model of transformers")
    if lacking := missing_shards(folder):
        raise ArtifactError(
            f"the download of {name!r} is incomplete: {', '.join(lacking[:3])} missing; "
            f"complete it with: hf download {repository}"
        )
    return folder


def _reason(error: Exception, repository: str, revision: str) -> str:
    """Return one line that says why a model cannot be had, and what would help."""
    # A gated repository is a kind of absent one, so it comes first.
    if isinstance(error, GatedRepoError):
        return f"it is gated; accept its terms at https://huggingface.co/{repository}, then: hf auth login"
    if isinstance(error, RevisionNotFoundError):
        return f"it has no revision {revision or 'main'!r}"
    if isinstance(error, RepositoryNotFoundError):
        return "the hub has no such model, or it is private; check the name, or: hf auth login"
    if isinstance(error, HFValidationError):
        return "this is no hub id (organisation/name or organisation/name@revision)"
    if isinstance(error, LocalEntryNotFoundError):
        where = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else "the hub does not answer"
        return f"{where}, and the cache {constants.HF_HUB_CACHE} does not hold {_complete(error)}"
    return first_line(error)


def _complete(error: Exception) -> str:
    return "all of its files" if type(error).__name__ == "IncompleteSnapshotError" else "it"
