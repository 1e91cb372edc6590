"""Examples: AgentPRM in one file, and environments in one file."""
