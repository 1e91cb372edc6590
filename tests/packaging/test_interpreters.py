"""Every interpreter that the classifiers name, if it is installed: all modules compile, some are imported.

The libraries are installed for the running interpreter alone. Elsewhere a module is imported as far as it
needs none of them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlprm.runtime.recipe_list import list_recipes
from tests.packaging.installs import ROOT

VERSIONS = ("3.11", "3.12", "3.13")
CODE = """
import compileall, importlib, json, sys
from pathlib import Path

root = Path(sys.argv[1])
assert compileall.compile_dir(root / "rlprm", quiet=1), "a module does not compile"
imported, failed = [], {}
for path in sorted((root / "rlprm").rglob("*.py")):
    name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    try:
        importlib.import_module(name)
        imported.append(name)
    except ModuleNotFoundError as error:
        if error.name.split(".")[0] == "rlprm":
            failed[name] = repr(error)
    except Exception as error:
        failed[name] = repr(error)
from rlprm.runtime.recipe_list import list_recipes
print(json.dumps({"imported": imported, "failed": failed, "recipes": list_recipes()}))
"""


def interpreter(version: str) -> str | None:
    """Return a program of this version, from the path or from pyenv's folder; None if there is none."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    names = [shutil.which(f"python{version}"), *versions.glob(f"{version}*/bin/python")]
    ask = ["-c", "import sys; print(*sys.version_info[:2], sep='.')"]
    for name in names:
        if name and _output([str(name), *ask]).strip() == version:
            return str(name)
    return None


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("version", VERSIONS)
def test_the_package_runs_as_far_as_no_library_is_needed(version: str, tmp_path: Path) -> None:
    program = interpreter(version)
    if program is None:
        pytest.skip(f"no Python {version} here")
    environment = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(tmp_path)}
    command = [program, "-s", "-W", "error::SyntaxWarning", "-c", CODE, str(ROOT)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["failed"] == {}
    assert {"rlprm", "rlprm.types", "rlprm.errors", "rlprm.runtime.resources"} <= set(found["imported"])
    assert found["recipes"] == list_recipes()


def test_the_running_interpreter_is_one_of_those_named() -> None:
    assert ".".join(map(str, sys.version_info[:2])) in VERSIONS
