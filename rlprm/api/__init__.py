"""The functions of the public face: from an environment to trajectories, a PRM, search and agent RL.

    environment → tasks → run_episodes → trajectories → train_prm → PRM → best_of_n, beam_search, train_rl

Each function does what the stage of the same purpose does on the command line, on values in memory where
that is possible. Each takes its random seed as an argument and keeps no state between calls. A mistake of
the caller raises a subclass of :class:`rlprm.errors.RlprmError` whose message is one line.
``run_search`` runs any search strategy by its name.

How episodes are run is the same in every function that runs some, with these keyword arguments:

* ``end``: who ends an episode, ``"declared"`` (the agent) or ``"on_success"`` (the environment);
* ``round_limit``: the most actions of an episode, the environment's own default if it is not given;
* ``prompt``: the opening instructions, ``"none"``, ``"short"`` or ``"agentgym"``;
* ``action_format``: how actions are written, ``"action_only"`` or ``"react"``.
"""

from __future__ import annotations

from rlprm.api.acting import (
    LoadedEnvironment,
    beam_search,
    best_of_n,
    load_environment,
    load_policy,
    load_prm,
    run_episodes,
    run_search,
)
from rlprm.api.learning import td_gae_labels, train_prm, train_rl

__all__ = [
    "LoadedEnvironment",
    "beam_search",
    "best_of_n",
    "load_environment",
    "load_policy",
    "load_prm",
    "run_episodes",
    "run_search",
    "td_gae_labels",
    "train_prm",
    "train_rl",
]
