"""Policies: things that, given conversations, write the next action."""
