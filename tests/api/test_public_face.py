"""The public face: the list of its names, what each of them documents, and what an import costs."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import rlprm
from rlprm import api

FUNCTIONS = {
    "beam_search", "best_of_n", "load_environment", "load_policy", "load_prm", "run_episodes",
    "run_search", "td_gae_labels", "train_prm", "train_rl",
}  # fmt: skip
TYPES = {
    "End", "EpisodeSetting", "Message", "Outcome", "Split", "Step", "StepLabels", "StepScores", "StopReason",
    "Task", "Trajectory", "Turn",
}  # fmt: skip


def test_the_face_is_this_list() -> None:
    assert set(rlprm.__all__) == FUNCTIONS | TYPES | {"RlprmError", "__version__"}
    assert len(rlprm.__all__) == len(set(rlprm.__all__))
    assert set(rlprm.__all__) <= set(dir(rlprm))
    assert {name: getattr(rlprm, name) for name in FUNCTIONS} == {n: getattr(api, n) for n in FUNCTIONS}
    assert all(getattr(rlprm, name).__module__ == "rlprm.types" for name in TYPES)
    assert issubclass(rlprm.RlprmError, Exception)


def test_a_type_checker_sees_every_name() -> None:
    """It does not run ``__getattr__``: it reads the imports under ``TYPE_CHECKING``."""
    tree = ast.parse(Path(rlprm.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(rlprm.__all__) - {"__version__"}


def test_a_name_that_the_face_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'rlprm' has no attribute 'train_everything'"):
        rlprm.train_everything  # noqa: B018


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_function_documents_its_arguments_its_result_and_its_errors(name: str) -> None:
    function = getattr(rlprm, name)
    text = inspect.getdoc(function) or ""
    assert all(f"\n{section}:\n" in text for section in ("Args", "Returns", "Raises"))
    documented = text.partition("\nArgs:\n")[2].partition("\nReturns:\n")[0]
    for parameter in inspect.signature(function).parameters.values():
        stars = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        assert f"    {stars}{parameter.name}: " in documented, f"{name} does not document {parameter.name}"


@pytest.mark.parametrize("name", sorted(TYPES))
def test_a_type_documents_itself(name: str) -> None:
    assert len(inspect.getdoc(getattr(rlprm, name)) or "") > 10


def loaded_after(statement: str) -> set[str]:
    """Heavy libraries that a fresh interpreter has imported after a statement."""
    code = (
        f"{statement}\nimport sys; print(*({{'torch', 'transformers', 'trl', 'numpy'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_import_loads_no_heavy_library() -> None:
    assert loaded_after("import rlprm; rlprm.__version__; dir(rlprm)") == set()
    assert loaded_after("from rlprm import Task, Trajectory, StopReason, RlprmError") == set()
