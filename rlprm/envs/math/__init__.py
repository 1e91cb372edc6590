"""Math and multiple-choice reasoning: a problem, one line of reasoning a turn, and a final answer.

The problems are generated chains of arithmetic (``source="arithmetic"``), GSM8K (``"gsm8k"``) or
multiple choice in MMLU's form (``"multiple_choice"``), the latter two from files or from the hub. Answers are
read as language models write them (``answers="flexible"``) or as published for GSM8K (``"strict"``).
"""

from rlprm.envs.math.answers import extract, same
from rlprm.envs.math.environment import ROUND_LIMIT, Reasoning, answer, demonstrate, make
from rlprm.envs.math.problems import Problem
from rlprm.envs.math.sources import SOURCES, tasks
from rlprm.envs.math.wording import FIXED_PHRASES, opening

__all__ = [
    "FIXED_PHRASES",
    "ROUND_LIMIT",
    "SOURCES",
    "Problem",
    "Reasoning",
    "answer",
    "demonstrate",
    "extract",
    "make",
    "opening",
    "same",
    "tasks",
]
