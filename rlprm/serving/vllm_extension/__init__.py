"""What is loaded by vLLM, in its own environment; this folder is on the path there, the package is not."""
