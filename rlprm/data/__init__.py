"""From text to token ids and back to disk: formats, rendering, conversations, the trajectory store."""
