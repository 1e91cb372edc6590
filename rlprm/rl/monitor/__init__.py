"""Watching a run of agent RL: metrics, evaluation, curves, and signs of reward hacking."""
