"""Parts of a page that a script writes: what stands between two markers."""

from __future__ import annotations


def between(text: str, name: str, block: str) -> str:
    """Replace what stands between the markers ``<!-- name: begin ... -->`` and ``<!-- name: end -->``.

    Raises:
        ValueError: if a marker is missing.
    """
    before, begin, remaining = text.partition(f"<!-- {name}: begin")
    comment, close, inside = remaining.partition("-->\n")
    _, end, after = inside.partition(f"<!-- {name}: end -->")
    if not (begin and close and end):
        raise ValueError(f"the markers of {name} are missing")
    return f"{before}{begin}{comment}{close}{block}\n{end}{after}"
