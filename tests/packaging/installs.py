"""Builds the package offline and installs it into environments of its own, which see no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = (
    "rlprm", "recipes", "ds_configs", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE",
    "CHANGELOG.md", "CITATION.cff", "constraints.txt",
)  # fmt: skip
_SKIPPED = shutil.ignore_patterns("__pycache__", "*.egg-info")


def copy_sources(folder: Path) -> Path:
    """Copy what the build reads: a build leaves files behind, and the checkout stays as it is."""
    folder.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=_SKIPPED)
        else:
            shutil.copyfile(source, folder / name)
    return folder


def build(kind: str, source: Path, target: Path) -> Path:
    """Run a hook of the build backend: build_sdist, build_wheel or build_editable; returns what it made."""
    target.mkdir(exist_ok=True)
    code = f"from setuptools import build_meta; build_meta.{kind}({str(target)!r})"
    _checked([sys.executable, "-c", code], cwd=source)
    (made,) = target.iterdir()
    return made


def unpack(sdist: Path, target: Path) -> Path:
    """Unpack an sdist; returns the folder of its sources."""
    shutil.unpack_archive(sdist, target, filter="data")
    (source,) = target.iterdir()
    return source


@dataclass(frozen=True)
class Installation:
    """An environment with the package, in which the libraries of the running one can be imported."""

    folder: Path

    @classmethod
    def of(cls, wheel: Path, folder: Path) -> Installation:
        """Install a wheel, or an editable one, without its dependencies and without a network."""
        venv.create(folder, symlinks=True, with_pip=False)
        made = cls(folder)
        options = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
        pip = [sys.executable, "-m", "pip", "--python", str(made.bin("python")), "install", *options]
        _checked([*pip, str(wheel)], cwd=folder)
        # It makes the libraries visible, but not what path files beside them (editable installs) name.
        packages = next(folder.glob("lib/python*/site-packages"))
        (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
        return made

    def bin(self, name: str) -> Path:
        """Return a program of the environment."""
        return self.folder / "bin" / name

    def run(self, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in a folder, without the variables that would show a checkout."""
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        environment["OMP_NUM_THREADS"] = "1"
        program = [str(self.bin(command[0])), *command[1:]]
        return subprocess.run(program, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def _checked(command: list[str], cwd: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
