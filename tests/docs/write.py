"""Write the generated parts of the documentation: ``python -m tests.docs.write``."""

from __future__ import annotations

from pathlib import Path

from studies.pages import between
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


if __name__ == "__main__":
    for path, text in expected().items():
        path.write_text(text, encoding="utf-8")
