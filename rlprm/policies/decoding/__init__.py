"""Ways to decode: all write the same tokens, and an architecture gets the fastest that is right for it."""
