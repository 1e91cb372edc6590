"""Every text-generation architecture of the installed transformers, as a tiny random model."""
