"""TextCraft: craft an item of Minecraft from recipes, as text, with AgentGym's wording and commands.

The recipes are those of Minecraft 1.16.5, or a folder of recipe files
(``recipes="path"``). Fully observed but for the inventory, which the agent
has to remember or to ask for.
"""

from rlprm.envs.textcraft.book import RecipeBook, load_book
from rlprm.envs.textcraft.environment import TextCraft, make
from rlprm.envs.textcraft.expert import ROUND_LIMIT, demonstrate
from rlprm.envs.textcraft.goals import DEFAULT_DEPTHS, tasks
from rlprm.envs.textcraft.recipes import Recipe, Slot
from rlprm.envs.textcraft.thoughts import explain
from rlprm.envs.textcraft.transcript import read_transcript
from rlprm.envs.textcraft.wording import FIXED_PHRASES, opening, tools

__all__ = [
    "DEFAULT_DEPTHS",
    "FIXED_PHRASES",
    "ROUND_LIMIT",
    "Recipe",
    "RecipeBook",
    "Slot",
    "TextCraft",
    "demonstrate",
    "explain",
    "load_book",
    "make",
    "opening",
    "read_transcript",
    "tasks",
    "tools",
]
