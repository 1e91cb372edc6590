"""Parts of the stage ``train-rl``."""
