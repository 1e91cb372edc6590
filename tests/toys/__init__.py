"""A small world, and policies and scorers without a model, for fast tests that are worked by hand."""
