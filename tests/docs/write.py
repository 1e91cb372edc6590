"""Write the generated parts of the documentation: ``python -m tests.docs.write``."""

from __future__ import annotations

from pathlib import Path

from tests.docs import layout, traps

ROOT = Path(__file__).parents[2]


def expected() -> dict[Path, str]:
    """Every file with generated parts, as it should read."""
    contributing = ROOT / "CONTRIBUTING.md"
    text = contributing.read_text(encoding="utf-8")
    return {
        ROOT / "docs/traps.md": traps.page(),
        contributing: between(text, "layout", layout.table()),
    }


def between(text: str, name: str, block: str) -> str:
    """Replace what stands between the markers ``<!-- name: begin ... -->`` and ``<!-- name: end -->``."""
    before, begin, rest = text.partition(f"<!-- {name}: begin")
    comment, close, inside = rest.partition("-->\n")
    _, end, after = inside.partition(f"<!-- {name}: end -->")
    if not (begin and close and end):
        raise ValueError(f"the markers of {name} are missing")
    return f"{before}{begin}{comment}{close}{block}\n{end}{after}"


if __name__ == "__main__":
    for path, text in expected().items():
        path.write_text(text, encoding="utf-8")
