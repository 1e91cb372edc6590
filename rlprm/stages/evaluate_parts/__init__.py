"""Parts of the stage `evaluate`: its settings, its scorers, its searches."""
