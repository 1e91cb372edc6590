"""Servers: a trained PRM that scores trajectories over HTTP."""
