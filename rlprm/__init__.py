"""rlprm: train LLM agents with process rewards (AgentPRM, arXiv 2511.08325)."""

__version__ = "0.1.0"
