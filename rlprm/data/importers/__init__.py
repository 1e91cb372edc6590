"""Trajectories of other frameworks; each module reads one format."""
