"""A policy behind an OpenAI-compatible chat endpoint: messages in, text out, and no probabilities."""
