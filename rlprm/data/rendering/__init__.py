"""Chat messages to token ids, piece by piece: the only room that turns a chat template into tokens.

A conversation is built from pieces that are never encoded twice:

    prompt ids | action ids (sampled) | observation ids | action ids | ...

The pieces are cut from the tokenizer's own chat template, and appended. History is never rendered again, so
a template that rewrites earlier turns (Qwen3's drops old thoughts) does no harm: turns stay as they were
sampled. With ``history: strict``, such a template is refused.
"""

from rlprm.data.rendering.renderer import ChatRenderer

__all__ = ["ChatRenderer"]
