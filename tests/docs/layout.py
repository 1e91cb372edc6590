"""CONTRIBUTING's table of the layout, from the floors that ``tests/test_architecture.py`` checks."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.test_architecture import FLOORS, NEVER, PACKAGE

__all__ = ["table"]


def table() -> str:
    """One row per room, lowest floor first; the text is the first line of the room's docstring."""
    lines = ["| floor | room | contents | never imports |", "| --- | --- | --- | --- |"]
    for number, rooms in enumerate(FLOORS, start=1):
        for room in sorted(rooms):
            folder, module = PACKAGE / room / "__init__.py", PACKAGE / f"{room}.py"
            path = folder if folder.exists() else module
            if path.exists():
                never = ", ".join(f"`{name}`" for name in sorted(NEVER.get(room, ())))
                name = f"`{room}/`" if path is folder else f"`{room}.py`"
                lines.append(f"| {number} | {name} | {_first_line(path)} | {never} |")
    return "\n".join(lines)


def _first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split()).replace("``", "`")
