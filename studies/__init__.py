"""Studies behind the recipes and the results; ``python -m studies.<name>.run`` from the repository's top."""
