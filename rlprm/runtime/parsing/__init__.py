"""How a recipe, a command line and a library's source become settings: parts of ``runtime.config``."""
