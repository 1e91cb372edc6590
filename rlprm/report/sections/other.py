"""Collections, labels, probes: what a stage says of its result, and where the numbers would deceive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlprm.report.finding import Part
from rlprm.report.html import note, section, table, warning
from rlprm.report.values import read_mapping

__all__ = ["other_section"]


def other_section(part: Part, title: str) -> str:
    """Return the results of a stage without a section of its own."""
    results = _flat(part.results)
    if not part.is_finished:
        meta = read_mapping(part.folder / "meta.json")
        wanted = meta.get("num_tasks")
        of = f" of {wanted} tasks" if wanted else ""
        return section(
            title, note(f"No record of an end: this stage{of} goes on, was killed, or was copied.")
        )
    return section(title, *_deceiving(part.results), table(("result", "value"), results.items()))


def _deceiving(results: Mapping[str, Any]) -> Iterator[str]:
    success = results.get("success_rate")
    if isinstance(success, (int, float)) and not 0.05 <= success <= 0.95:
        yield warning(
            f"{100 * success:.1f} % of the episodes succeed. A reward model that learns from them sees "
            "hardly any of the other kind, and its calibration says little."
        )


def _flat(results: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in results.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{above}{name}: ")
        else:
            flat[above + name] = value
    return flat
