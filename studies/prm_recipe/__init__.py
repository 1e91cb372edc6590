"""The PRM recipe: one change at a time, several seeds, dev tasks."""
