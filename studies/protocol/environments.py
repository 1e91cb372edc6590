"""What differs between the environments of the protocol; their settings are those of recipes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rlprm.evaluation.baselines import GUIDANCE, RERANKING
from rlprm.types import Task


@dataclass(frozen=True)
class Environment:
    """An environment in the protocol."""

    name: str
    kind: str
    """``guidance``: the endpoint is a beam 4×4; ``reranking``: the endpoint is best of 16."""
    recipes: str
    """Folder of its recipes."""
    goal: Callable[[Task], str] | None = None
    """Of an environment with finitely many goals: which one a task has."""
    model: str = "tiny"
    """End of the names of its recipes."""
    test_tasks: int = 256
    """Test tasks of a seed."""
    dev_tasks: int = 192
    """Dev tasks of a seed."""

    @property
    def endpoint(self) -> str:
        """Key of the rows that the primary comparisons are made of."""
        return "beam" if self.kind == GUIDANCE else "best_of_n"


def _textcraft_goal(task: Task) -> str:
    return str(task.spec["goal"])


def _webshop_goal(task: Task) -> str:
    """Return the wish; its tasks differ in words and price cap."""
    return f"{task.spec.get('product')}-{task.spec.get('wish', task.spec.get('goal'))}"


ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        Environment("babyai", GUIDANCE, "recipes/babyai"),
        Environment("textcraft", GUIDANCE, "recipes/textcraft", goal=_textcraft_goal),
        Environment("webshop", RERANKING, "recipes/webshop", goal=_webshop_goal),
        Environment("math", RERANKING, "recipes/math"),
        # A real pretrained model: a pilot of one policy, with as many tasks as a CPU can do.
        Environment(
            "textcraft-smollm2",
            GUIDANCE,
            "recipes/textcraft",
            goal=_textcraft_goal,
            model="smollm2-135m",
            test_tasks=64,
            dev_tasks=24,
        ),
        Environment(
            "math-smollm2", RERANKING, "recipes/math", model="smollm2-135m", test_tasks=128, dev_tasks=64
        ),
    )
}
