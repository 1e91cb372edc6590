"""The prompt of a conversation: which of its characters the template wrote, and which the messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rlprm.data.rendering.control import Part
from rlprm.data.rendering.template import Template
from rlprm.errors import ChatTemplateError
from rlprm.types import Message

__all__ = ["Shape", "Skeleton", "parts_of", "shape_of", "skeleton_of"]

Skeleton = Sequence[str]
"""What the template writes before, between and behind the contents that are not blank."""

Shape = tuple[tuple[str, str | None], ...]
"""Of each message its role, and its content if the content is blank."""


def shape_of(messages: Sequence[Message]) -> Shape:
    """Return for each message its role, and its content if the content is blank.

    Templates leave a blank content out, or trim the content, so a stand-in cannot tell where it belongs.
    """
    return tuple((m["role"], None if m["content"].strip() else m["content"]) for m in messages)


def skeleton_of(template: Template, shape: Shape) -> Skeleton:
    """Render a conversation with stand-ins for contents, and return what is between them.

    Raises:
        ChatTemplateError: if the template drops, repeats or moves a content.
    """
    contents = [f"content-{i}-of-message" if blank is None else blank for i, (_, blank) in enumerate(shape)]
    messages = [Message(role=role, content=c) for (role, _), c in zip(shape, contents, strict=True)]
    rest = template.render(messages)
    pieces = []
    for (role, _), content in zip(shape, contents, strict=True):
        if not content.strip():
            continue
        if rest.count(content) != 1:
            raise ChatTemplateError(
                f"the chat template drops, repeats or moves the content of a {role} message"
            )
        piece, rest = rest.split(content)
        pieces.append(piece)
    return [*pieces, rest]


def parts_of(
    skeleton: Skeleton, messages: Sequence[Message], rendered: str, trim: Callable[[str], str]
) -> tuple[list[Part], bool]:
    """Tell the template's text in a prompt from the messages'.

    Args:
        skeleton: of the messages' shape.
        messages: of the prompt.
        rendered: the prompt, as the template gives it.
        trim: what the template does to the white space around a content.

    Returns:
        The parts, and whether they make up ``rendered``. They do not if a content changes what the
        template writes, for instance because it contains ``</think>``. The parts hold the content in full.
    """
    contents = [m["content"] for m in messages if m["content"].strip()]
    parts, at, fits = (
        [Part(skeleton[0], is_template=True)],
        len(skeleton[0]),
        rendered.startswith(skeleton[0]),
    )
    for content, literal in zip(contents, skeleton[1:], strict=True):
        variants = dict.fromkeys(
            (trim(content), content, content.strip(), content.lstrip(), content.rstrip())
        )
        chosen = next((v for v in variants if rendered.startswith(v + literal, at)), None)
        fits = fits and chosen is not None
        text = next(iter(variants)) if chosen is None else chosen
        parts += [Part(text), Part(literal, is_template=True)]
        at += len(text) + len(literal)
    return parts, fits and at == len(rendered)
