"""Names of models: a folder, or an id on the Hugging Face hub, perhaps with a revision."""

from __future__ import annotations

from pathlib import Path

from rlprm.errors import ConfigError

__all__ = ["is_hub_id", "with_revision"]


def is_hub_id(name: str) -> bool:
    """Whether a name is a hub id, ``organisation/name`` or ``organisation/name@revision``.

    A revision may contain slashes (``refs/pr/1``).
    """
    repository = name.partition("@")[0]
    if not repository or Path(name).is_dir():
        return False
    return repository.count("/") == 1 and repository[0] not in "./~" and not Path(repository).parent.is_dir()


def with_revision(name: str, revision: str | None) -> str:
    """Return the name of a hub's model at a branch, tag or commit; the same name without one.

    Raises:
        ConfigError: for the revision of a folder, or a second one.
    """
    if revision is None:
        return name
    if not is_hub_id(name):
        raise ConfigError(f"revision: got {revision!r} with model {name!r}, allowed: with a hub id")
    if "@" in name:
        raise ConfigError(f"revision: got {revision!r} with {name!r}, allowed: one of the two revisions")
    return f"{name}@{revision}"
