"""BabyAI: language goals in a grid of rooms, as text, with AgentGym's wording and actions.

The worlds are minigrid's 40 BabyAI levels (``levels=["GoToLocalS8N7", ...]``). With ``rules="agentgym"`` an
episode is what AgentGym's server plays, mistakes included.
Partially observed: the agent is told what it sees ahead, so an action's progress
also holds the luck of what it revealed.
"""

from rlprm.envs.babyai.environment import BabyAI, make
from rlprm.envs.babyai.expert import demonstrate
from rlprm.envs.babyai.levels import DEFAULT_LEVELS, LEVELS, tasks
from rlprm.envs.babyai.rules import ROUND_LIMIT
from rlprm.envs.babyai.transcript import read_transcript
from rlprm.envs.babyai.wording import FIXED_PHRASES, opening, tools

__all__ = [
    "DEFAULT_LEVELS",
    "FIXED_PHRASES",
    "LEVELS",
    "ROUND_LIMIT",
    "BabyAI",
    "demonstrate",
    "make",
    "opening",
    "read_transcript",
    "tasks",
    "tools",
]
