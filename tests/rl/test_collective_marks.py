"""A function of rl/ that makes a collective call is marked itself, so that the debug switch sees it."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import rlprm
from rlprm.runtime.processes import COLLECTIVES

PACKAGE = Path(rlprm.__file__).parent
MODULES = [path for path in (PACKAGE / "rl").rglob("*.py") if path.stem != "__init__"]
AMBIGUOUS = {"backward", "forward", "gather", "score", "step", "train", "update"}
"""Names that methods of other objects (tensors, optimisers) have, too."""


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef]]:
    """The public functions and methods of a file, by their full names."""
    module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{module}.{node.name}" if isinstance(node, ast.ClassDef) else module
        for function in inner:
            if isinstance(function, ast.FunctionDef) and not function.name.startswith("_"):
                yield f"{prefix}.{function.name}", function


def called(function: ast.FunctionDef) -> set[str]:
    """The last names of all that a function calls."""
    targets = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    names = {target.id for target in targets if isinstance(target, ast.Name)}
    return names | {target.attr for target in targets if isinstance(target, ast.Attribute)}


def test_public_functions_that_make_a_collective_call_are_marked() -> None:
    for path in MODULES:
        importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    names = {name.rpartition(".")[2] for name in COLLECTIVES if name.startswith("rlprm.")} - AMBIGUOUS
    assert {"wait", "gather_all", "collect", "save_checkpoint", "acting"} <= names
    callers = {name for path in MODULES for name, f in functions(path) if called(f) & names}
    assert len(callers) > 8
    assert callers - COLLECTIVES == set()


def test_what_an_engine_and_a_sampler_mark_their_implementations_mark_too() -> None:
    def marked(owner: str) -> set[str]:
        prefix = f"rlprm.rl.{owner}."
        return {name.removeprefix(prefix) for name in COLLECTIVES if name.startswith(prefix)}

    shared = marked("engine.accelerated.AccelerateEngine")
    assert marked("engine.base.Engine") == shared | marked("engine.plain.PlainEngine")
    assert marked("engine.base.Engine") == shared | marked("engine.deepspeed.DeepSpeedEngine")
    assert marked("sampler.Sampler") == marked("sampler.LocalSampler")
