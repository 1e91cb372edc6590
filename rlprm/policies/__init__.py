"""Policies: given conversations, a policy writes the next action."""
