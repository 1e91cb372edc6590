"""How a stage runs: its settings, its processes, its record on disk, and its tracker."""
