"""Models: loading, the heads of a PRM, value positions, and the embedded tiny model."""
