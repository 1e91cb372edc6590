"""YAML as people write it, with mistakes reported in one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from rlprm.errors import ArtifactError, ConfigError

__all__ = ["load_yaml", "read_mapping"]


class _Loader(yaml.SafeLoader):
    """``1e-4`` is a number, as in YAML 1.2 (PyYAML reads YAML 1.1), and a key stands once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is there twice; PyYAML would take the last one without a word."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)


def load_yaml(text: str, where: str) -> Any:
    """Parse YAML.

    Args:
        text: of a file or of the command line.
        where: its origin, for the message.

    Raises:
        ConfigError: with the line, if the text is not YAML.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise ConfigError(f"{where} is not valid YAML: {line}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not valid YAML: {str(error).splitlines()[0]}") from error


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings.

    Raises:
        ArtifactError: if the file cannot be read.
        ConfigError: if it holds something else than settings.

    Dashes in the names of settings are underscores.
    """
    try:
        content = load_yaml(path.read_text(encoding="utf-8"), where=str(path))
    except OSError as error:
        raise ArtifactError(f"cannot read the configuration {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, got {type(content).__name__}")
    return {str(name).replace("-", "_"): value for name, value in content.items()}
