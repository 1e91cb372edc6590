"""Agent RL with different rewards and advantages at equal environment steps."""
