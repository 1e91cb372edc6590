"""Models: loading, the embedded tiny model, and the scalar head."""
