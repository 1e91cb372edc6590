"""What pyproject.toml promises: one version, floors, extras, and no install line for an unpublished name."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml

import rlprm
from tests.packaging.installs import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PUBLISHED = False
"""Whether a package registry has rlprm; until then `pip install rlprm` installs nothing of ours."""
INSTALL_LINE = re.compile(r"pip3? install[^\n`#]*?[\s\"']rlprm(?![\w/.])")


def test_the_version_is_the_same_everywhere() -> None:
    assert PROJECT["version"] == rlprm.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == rlprm.__version__


@pytest.mark.parametrize(
    ("requirement", "where"),
    [
        ("minigrid>=3.2,<4", PROJECT["dependencies"]),
        ("transformers>=5.23,<6", PROJECT["dependencies"]),
        ("deepspeed>=0.19", PROJECT["optional-dependencies"]["deepspeed"]),
    ],
)
def test_libraries_whose_older_versions_compute_otherwise_have_a_floor(
    requirement: str, where: list[str]
) -> None:
    assert requirement in where


def test_extras_and_interpreters_are_named() -> None:
    assert {"textworld", "tensorboard", "deepspeed", "dev"} <= set(PROJECT["optional-dependencies"])
    named = {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)}
    assert named <= set(PROJECT["classifiers"])


def test_an_install_line_names_the_package_only_once_it_is_published() -> None:
    assert INSTALL_LINE.search('pip install "rlprm[textworld]"')
    assert INSTALL_LINE.search("pip install --upgrade rlprm")
    assert not INSTALL_LINE.search('pip install -e ".[textworld]"  # rlprm')
    assert not INSTALL_LINE.search("pip install deepspeed ninja")
    folders = ("rlprm", "docs", "recipes", "ds_configs", "scripts", "examples", "studies")
    files = [path for name in folders for path in (ROOT / name).rglob("*")] + list(ROOT.glob("*.*"))
    kinds = {".py", ".md", ".yaml", ".sh", ".toml"}
    lines = {
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in files
        if path.suffix in kinds
        for line in path.read_text(encoding="utf-8").splitlines()
        if INSTALL_LINE.search(line)
    }
    assert PUBLISHED or lines == set()
