"""Recipes: YAML files of settings, with shared bases and one root for a chain of stages.

    base: _tiny.yaml                # settings of this file are the defaults of this recipe
    model: ${root}/policy           # _tiny.yaml holds  root: runs/babyai_tiny
    output_dir: ${root}/rollouts

A recipe's setting replaces the base's setting of that name, a mapping included. A base may hold settings
of several stages: each stage takes those that it has. ``--root runs/b`` moves the chain.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlprm.errors import ArtifactError, ConfigError, refuse_unknown
from rlprm.runtime.parsing.library import accepted_names
from rlprm.runtime.parsing.yaml_text import read_mapping
from rlprm.runtime.resources import RECIPES, find_file

__all__ = ["ROOT", "STAGE_SETTINGS", "Arguments", "read_recipe", "resolve", "settings_type"]

ROOT = "root"
_BASE = "base"
_REFERENCE = re.compile(r"\$\{([^}]*)\}")

STAGE_SETTINGS = {
    "sft": "rlprm.stages.settings:SFTStageConfig",
    "collect": "rlprm.stages.settings:CollectConfig",
    "estimate": "rlprm.stages.settings:EstimateConfig",
    "label": "rlprm.stages.settings:LabelConfig",
    "train-prm": "rlprm.prm.config:PRMConfig",
    "probe-actions": "rlprm.stages.settings:ProbeActionsConfig",
    "train-rl": "rlprm.rl.config:RLConfig",
    "export": "rlprm.stages.settings:ExportConfig",
    "evaluate": "rlprm.stages.settings:EvaluateConfig",
    "quickstart": "rlprm.stages.settings:QuickstartConfig",
    "serve": "rlprm.serving.vllm_settings:ServeConfig",
    "serve-prm": "rlprm.serving.prm_settings:ServePRMConfig",
}
"""Stage → its settings, as ``module:class``; none of these modules imports torch."""


@dataclass(frozen=True)
class Arguments:
    """A stage's settings before their types are checked."""

    values: dict[str, Any]
    """From the recipe and its bases."""
    overrides: list[tuple[list[str], Any]]
    """Dotted settings of the command line, as path and value."""
    rest: list[str]
    """What else is on the command line."""


def resolve(
    file: str | None,
    overrides: Sequence[tuple[list[str], Any]],
    rest: Sequence[str],
    names: set[str],
    *,
    of_any_stage: bool = False,
) -> Arguments:
    """Read the recipe, if any, and put ``root`` in wherever ``${root}`` stands.

    Args:
        file: of ``--config``; a path, or the name of a shipped recipe.
        overrides: dotted settings of the command line.
        rest: other arguments of the command line; ``--root`` may be among them.
        names: settings of the stage.
        of_any_stage: whether the recipe may be another stage's, see :func:`read_recipe`.

    Raises:
        ArtifactError: if the recipe or a base is missing.
        ConfigError: for an unknown setting in a base, a circle of bases or an unknown ``${name}``.
    """
    given, words = _take_root(rest)
    values = read_recipe(file, names, of_any_stage=of_any_stage) if file else {}
    root = values.pop(ROOT, None) if given is None else given
    values.pop(ROOT, None)
    if root is not None and (not isinstance(root, str) or not root or "${" in root):
        raise ConfigError(f"root: got {root!r}, allowed: a folder")
    where = file or "the command line"
    if given is not None and not any("${root}" in str(part) for part in (values, overrides, words)):
        raise ConfigError(f"root: got {given!r}, but no setting of {where} contains ${{root}}")
    root = root and (root.rstrip("/") or "/")
    return Arguments(
        {name: _substitute(value, root, name, where) for name, value in values.items()},
        [(path, _substitute(value, root, ".".join(path), "the command line")) for path, value in overrides],
        [_substitute(word, root, word, "the command line") for word in words],
    )


def read_recipe(name: str, names: set[str], *, of_any_stage: bool = False) -> dict[str, Any]:
    """Return the settings of a recipe over those of its bases; ``root`` is among them if it is set.

    Args:
        name: a path, or the name of a shipped recipe.
        names: settings of the stage. Others are left out if a base holds them and another stage has them;
            if the recipe itself holds one, it stays and is the caller's to refuse.
        of_any_stage: treat the recipe itself as a base.

    Raises:
        ArtifactError: if the recipe or a base is missing.
        ConfigError: for an unknown setting in a base, or a circle of bases.
    """
    path = find_file(name, RECIPES)
    if path is None:
        raise ArtifactError(
            f"cannot read the configuration {name}: No such file, and no shipped recipe has that name; "
            "rlprm recipes lists them"
        )
    return _read(path, names, (), leaves_out=of_any_stage)


def _read(
    path: Path, names: set[str], above: tuple[Path, ...], *, leaves_out: bool = False
) -> dict[str, Any]:
    """Read a file; ``above`` are those whose base it is."""
    if any(path.resolve() == other.resolve() for other in above):
        raise ConfigError(f"{_BASE}: a circle of files: {' -> '.join(map(str, (*above, path)))}")
    own = read_mapping(path)
    bases = own.pop(_BASE, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(
            f"{path}: {_BASE}: got {bases!r}, allowed: a YAML file beside it, or a list of them"
        )
    settings: dict[str, Any] = {}
    for base in bases:
        file = path.parent / base
        if not file.is_file():
            raise ArtifactError(f"{path}: {_BASE}: got {base!r}, but there is no file {file}")
        settings |= _read(file, names, (*above, path))
    if above or leaves_out:
        own = _settings_of_stage(own, names, path)
    return settings | own


def _settings_of_stage(found: dict[str, Any], names: set[str], path: Path) -> dict[str, Any]:
    """Return what a stage takes from a base; refuse what no stage has."""
    others = found.keys() - names - {ROOT}
    if others:
        refuse_unknown(others, names | _settings_of_all_stages(), str(path))
    return {name: value for name, value in found.items() if name not in others}


def settings_type(stage: str) -> Any:
    """Return the class of a stage's settings; imports neither torch nor the stage."""
    module, _, name = STAGE_SETTINGS[stage].partition(":")
    return getattr(importlib.import_module(module), name)


def _settings_of_all_stages() -> set[str]:
    found: set[str] = set()
    for stage in STAGE_SETTINGS:
        found |= accepted_names(settings_type(stage))
    return found


def _take_root(words: Sequence[str]) -> tuple[str | None, list[str]]:
    root, rest, following = None, [], iter(words)
    for word in following:
        name, has_value, value = word.partition("=")
        if name != f"--{ROOT}":
            rest.append(word)
            continue
        root = value if has_value else next(following, None)
        if root is None or root.startswith("--"):
            raise ConfigError(f"--{ROOT} needs a folder")
    return root, rest


def _substitute(value: Any, root: str | None, name: str, where: str) -> Any:
    """Put the root into every text of a value."""
    if isinstance(value, dict):
        return {key: _substitute(inner, root, f"{name}.{key}", where) for key, inner in value.items()}
    if isinstance(value, list):
        return [_substitute(inner, root, name, where) for inner in value]
    if not isinstance(value, str):
        return value
    for reference in _REFERENCE.findall(value):
        if reference != ROOT:
            raise ConfigError(
                f"{name}: got {value!r} in {where}, allowed: ${{{ROOT}}} alone between ${{ and }}"
            )
        if root is None:
            raise ConfigError(
                f"{name}: got {value!r} in {where}, but no {ROOT} is set; set {ROOT} there or --{ROOT}"
            )
    return value.replace(f"${{{ROOT}}}", root) if root else value
