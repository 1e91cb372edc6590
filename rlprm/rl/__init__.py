"""Reinforcement learning of an agent on step rewards.

* ``rewards``: what each step is paid, from a PRM's values and the outcome
* ``advantages``: from rewards to what each step or token is credited with
* ``combinations``: which of them do not go together, and why
"""
