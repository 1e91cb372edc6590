"""What runs the episodes of agent RL: this process, or inference servers."""
