"""Servers: a PRM that scores, and vLLM servers that act."""
