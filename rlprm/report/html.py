"""Markup of a report: every text is escaped here, so that what a model wrote is never markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["cell", "details", "note", "section", "table", "warning"]


def cell(value: object) -> str:
    """Return a value as text of the page."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return escape(str(value))


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, caption: str = "") -> str:
    """Return a table; columns from the second on are numbers, set to the right."""
    titles = "".join(f'<th scope="col">{cell(name)}</th>' for name in head)
    body = "".join(
        "<tr>"
        + f'<th scope="row">{cell(row[0])}</th>'
        + "".join(f"<td>{cell(v)}</td>" for v in row[1:])
        + "</tr>"
        for row in rows
    )
    if not body:
        return ""
    above = f"<caption>{cell(caption)}</caption>" if caption else ""
    return (
        f'<div class="wide"><table>{above}<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def section(title: str, *parts: str, about: str = "") -> str:
    """Return a titled part of the page; an empty text if there is nothing in it."""
    body = "".join(parts)
    if not body:
        return ""
    says = f'<p class="about">{cell(about)}</p>' if about else ""
    return f"<section><h3>{cell(title)}</h3>{says}{body}</section>"


def details(title: str, *parts: str) -> str:
    """Return a part that opens at a click; an empty text if there is nothing in it."""
    body = "".join(parts)
    return f"<details><summary>{cell(title)}</summary>{body}</details>" if body else ""


def warning(text: str) -> str:
    """Return a sentence that a reader must not miss."""
    return f'<p class="warning" role="note">{cell(text)}</p>'


def note(text: str) -> str:
    """Return a sentence below what it explains."""
    return f'<p class="about">{cell(text)}</p>'
