"""Tasks become trajectories: episodes, collections on disk, and Monte-Carlo estimates."""
