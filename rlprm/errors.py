"""The errors this package raises on purpose.

Each also derives from the standard exception a caller would expect, so that
``except ValueError`` works without importing this module. The command line
prints any of them as one line and exits with status 2, or 1 if the user did nothing
wrong and the same command may go on later. Whatever else is raised is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Set
from typing import Any

log = logging.getLogger(__name__)
SOURCES = "sources"
"""Name, in a record of a run, of the hashes of the user's own code (:mod:`rlprm.components.sources`)."""
MODEL_FILES = "model_files"
"""Name, in a record of a run, of the hashes of a model's files beside its weights: tokenizer, chat template,
configurations (:mod:`rlprm.models.hub.identity`)."""


class RlprmError(Exception):
    """Base of all errors whose message is meant for the user."""

    exit_status = 2
    """Of the command line."""


class ConfigError(RlprmError, ValueError):
    """A setting has a wrong type, an unknown name or an impossible value."""


class UnknownComponentError(ConfigError):
    """A component was asked for by a name that does not exist; the message lists those that do."""


class DataError(RlprmError, ValueError):
    """Stored data is damaged, empty, or does not have the expected form."""


class ArtifactError(RlprmError, FileNotFoundError):
    """A checkpoint, dataset or manifest that a stage needs is not where it was said to be."""


class MismatchError(RlprmError, ValueError):
    """Two artifacts that must agree (template, `end` mode, outcome definition, ...) do not."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, for a message of one line; its class if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


_WAYS_OUT = "choose another output_dir, delete this one, or give --overwrite"


def refuse_other_settings(what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with something that was made with other settings, code of the user's, or model files.

    A record of 0.1.0 has neither :data:`SOURCES` nor :data:`MODEL_FILES`. If the user has code,
    the record is accepted with a warning.

    Args:
        what: a clause such as ``"runs/a holds trajectories collected"``.
        before: the settings stored with it.
        now: the settings wanted.

    Raises:
        MismatchError: naming the differences.
    """
    names = before.keys() | now.keys()
    different = sorted(k for k in names - {SOURCES, MODEL_FILES} if before.get(k) != now.get(k))
    if different:
        details = ", ".join(f"{k}: {before.get(k)!r} there, {now.get(k)!r} now" for k in different[:5])
        raise MismatchError(f"{what} with other settings ({details}); {_WAYS_OUT}")
    refuse_other_code(what, before, now)
    if MODEL_FILES in before:
        _refuse_changed(f"{what} with other files of a model", before[MODEL_FILES], now.get(MODEL_FILES, {}))


def refuse_other_code(what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with something that was made with other code of the user's.

    Args:
        what: see :func:`refuse_other_settings`.
        before: the record of it. One without an entry :data:`SOURCES` is accepted with a warning.
        now: the present record. One without the entry uses no code of the user's.

    Raises:
        MismatchError: naming the files that have changed.
    """
    if SOURCES not in before:
        if now.get(SOURCES):
            log.warning(
                "%s by a version that kept no hash of your code: %s could not be compared",
                what, " and ".join(now[SOURCES]),
            )  # fmt: skip
        return
    _refuse_changed(f"{what} with other code", before[SOURCES], now.get(SOURCES, {}))


def _refuse_changed(
    what: str, old: Mapping[str, Mapping[str, str]], new: Mapping[str, Mapping[str, str]]
) -> None:
    """Compare hashes by component and file."""
    changed = [
        f"{file} of the {component} {_change(old.get(component, {}), new.get(component, {}), file)}"
        for component in sorted(old.keys() | new.keys())
        for file in sorted(old.get(component, {}).keys() | new.get(component, {}).keys())
        if old.get(component, {}).get(file) != new.get(component, {}).get(file)
    ]
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise MismatchError(f"{what} ({', '.join(changed[:5])}{more}); {_WAYS_OUT}")


def _change(old: Mapping[str, str], new: Mapping[str, str], file: str) -> str:
    if file not in old:
        return "is new"
    return "has changed" if file in new else "is gone"


def refuse_unknown(given: Set[str], known: Set[str], where: str) -> None:
    """Refuse unknown names of settings.

    Args:
        given: names of settings.
        known: names that are allowed.
        where: the file, or the command line.

    Raises:
        ConfigError: for the first unknown name, with the nearest known one.
    """
    for name in sorted(given - known):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown setting {name!r} in {where}{hint}")


class ChatTemplateError(RlprmError, ValueError):
    """A chat template cannot be used for multi-turn rollouts with stable token ids."""


class ContextLengthError(RlprmError, ValueError):
    """A prompt does not fit into the model's context."""


class ServiceError(RlprmError, ConnectionError):
    """A server that a run needs does not answer, or answers something that cannot be right."""


class DemonstrationError(RlprmError, RuntimeError):
    """The expert of an environment could not solve a task."""


class EpisodesFailedError(RlprmError, RuntimeError):
    """No episode of several worked: there is nothing to go on with."""


class EpisodesLostError(RlprmError, RuntimeError):
    """Too many episodes of an iteration failed; the run can go on once their cause is mended."""

    exit_status = 1


class ServersGoneError(RlprmError, ConnectionError):
    """No server answers any more; what is stored so far is kept, and the same command goes on from there."""

    exit_status = 1


class OutOfDeviceMemoryError(RlprmError, RuntimeError):
    """The memory of the device is too small for a setting, and for half of it."""


class RunInterruptedError(RlprmError, RuntimeError):
    """A signal has ended a run that can be resumed.

    Args:
        message: for the user.
        exit_status: 128 plus the number of the signal.
    """

    def __init__(self, message: str, *, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class TrainingError(RlprmError, RuntimeError):
    """Training cannot go on, for instance because the loss is not finite."""
