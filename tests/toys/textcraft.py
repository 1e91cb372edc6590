"""A small book of TextCraft's recipes and episodes with it."""

from __future__ import annotations

from rlprm.envs.textcraft import Recipe, RecipeBook, Slot, TextCraft
from rlprm.types import End

PLANKS = ("birch planks", "oak planks")


def recipe(output: str, count: int, *slots: tuple[int, str] | tuple[int, str, tuple[str, ...]]) -> Recipe:
    return Recipe(output, count, tuple(Slot(s[1], s[0], s[2] if len(s) == 3 else (s[1],)) for s in slots))


def small_book() -> RecipeBook:
    """Planks from two trees, sticks, a torch, and a ladder."""
    return RecipeBook(
        [
            recipe("oak planks", 4, (1, "oak log")),
            recipe("birch planks", 4, (1, "birch log")),
            recipe("stick", 4, (2, "planks", PLANKS)),
            recipe("torch", 4, (1, "coal"), (1, "stick")),
            recipe("ladder", 3, (7, "stick")),
        ]
    )


def episode(goal: str = "torch", end: End = End.DECLARED, book: RecipeBook | None = None) -> TextCraft:
    env = TextCraft(book or small_book(), goal, 0, end=end)
    env.reset()
    return env


def answers(env: TextCraft, *actions: str) -> list[str]:
    return [env.step(action).observation for action in actions]


TO_THE_TORCH = [
    "get 1 oak log",
    "craft 4 oak planks using 1 oak log",
    "craft 4 stick using 2 oak planks",
    "get 1 coal",
    "craft 4 torch using 1 coal, 1 stick",
]
