"""The file of a report: one HTML page with its style, its script and its data inside."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from rlprm import __version__
from rlprm.data.encodable import encodable
from rlprm.report.finding import Part, Run
from rlprm.report.html import cell
from rlprm.report.packing import Packer, packed
from rlprm.report.sections.evaluation import evaluation_section
from rlprm.report.sections.other import other_section
from rlprm.report.sections.provenance import comparison_section, cost_section, settings_section
from rlprm.report.sections.training import rl_section, training_section
from rlprm.report.sources import Source, candidates, sources_of
from rlprm.report.vocabulary import token_texts
from rlprm.runtime.files import write_parts

__all__ = ["page_parts", "write_page"]

_ASSETS = files("rlprm.report") / "assets"
_ORDER = ("evaluate", "train-rl", "train-prm", "sft")
_SECTIONS = {
    "evaluate": evaluation_section,
    "train-rl": rl_section,
    "train-prm": training_section,
    "sft": training_section,
}


def write_page(runs: Sequence[Run], path: Path) -> None:
    """Write the report of some runs. The file appears whole or not at all."""
    write_parts(path, map(encodable, page_parts(runs)))


def page_parts(runs: Sequence[Run]) -> Iterator[str]:
    """Yield the page piece by piece, what a reader sees first in front.

    Trajectories need not fit in memory.
    """
    style, script = ((_ASSETS / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    title = escape(", ".join(run.name for run in runs))
    # No other script runs than the page's own, and nothing is fetched, whatever a text of a model holds.
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:"
    yield (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title} – rlprm</title><style>{style}</style></head><body>"
        '<a class="skip" href="#main">Skip to the results</a>'
        f"<header><h1>{title}</h1><p>rlprm {escape(__version__)}</p>"
        '<button id="theme" type="button" title="Light or dark">◐ theme</button>'
        '<nav id="nav" aria-label="Parts of the page"></nav></header><main id="main">'
    )
    yield comparison_section(runs)
    for run in runs:
        yield f'<article><h2>{cell(run.name)}</h2><p class="path">{cell(str(run.folder))}</p>'
        for part in sorted(run.parts, key=_place):
            yield _section(run, part)
        yield settings_section(run) + cost_section(run) + "</article>"
    yield (_ASSETS / "viewer.html").read_text(encoding="utf-8")
    sources = [(run, source) for run in runs for source in sources_of(run)]
    indexes = []
    for number, (run, source) in enumerate(sources):
        name = f"{run.name}: {source.title}" if len(runs) > 1 else source.title
        packer = Packer()
        shown = tqdm(candidates(source), desc=name, unit="trajectory", leave=False)
        for place, text in enumerate(packer.portions(shown)):
            yield f'<script type="text/plain" class="portion" id="p{number}-{place}">{text}</script>\n'
        indexes.append(_index(source, name, packer))
    yield f'<script type="text/plain" id="index">{packed(indexes)}</script>'
    yield f"</main><script>{script}</script></body></html>\n"


def _place(part: Part) -> int:
    return _ORDER.index(part.stage) if part.stage in _ORDER else len(_ORDER)


def _section(run: Run, part: Part) -> str:
    title = f"{run.title_of(part)}: {part.stage}"
    return _SECTIONS.get(part.stage, other_section)(part, title)


def _index(source: Source, name: str, packer: Packer) -> dict[str, Any]:
    texts = token_texts(source.tokenizer, packer.token_ids)
    return {
        "title": name,
        "kind": source.kind,
        "rules": {scorer: source.rules.get(scorer, "last") for scorer in source.scores},
        "tokens": texts,
        **packer.index(),
    }
