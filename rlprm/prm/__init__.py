"""Training process reward models: AgentPRM, and its baselines through the same trainer."""
