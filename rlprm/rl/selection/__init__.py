"""Which of an iteration's episodes the policy learns from."""
