"""A policy whose model stands on one or several inference servers (vLLM)."""
