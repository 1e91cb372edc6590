"""Write the tables of pages that come from records: quickstart, protocol, SmolLM2, alarm, arms, healthy runs.

python scripts/make_pages.py      a test compares the pages with what this script would write
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the studies are no part of the installed package

from rlprm.runtime.files import read_json  # noqa: E402
from studies import quickstart  # noqa: E402
from studies.pages import between  # noqa: E402
from studies.protocol import records, report  # noqa: E402
from studies.rl import alarm, arms, healthy  # noqa: E402

PRETRAINED = Path("docs/results/smollm2")
"""Records of the pilots on a real pretrained model."""


def pages(root: Path = ROOT) -> dict[Path, str]:
    """Return every page with tables from records, as it should read.

    A table whose record does not exist yet is left as it is.
    """
    names = ("README.md", "docs/results.md", "docs/performance.md", "docs/pretrained.md", "docs/rl.md")
    readme, results, times, pretrained, rl = (root / name for name in names)
    found = {page: page.read_text(encoding="utf-8") for page in (readme, results, times, pretrained, rl)}
    if (root / quickstart.RECORD).exists():
        recorded = read_json(root / quickstart.RECORD)
        found[readme] = between(found[readme], "quickstart", quickstart.short_table(recorded))
        found[results] = between(found[results], "quickstart", quickstart.table(recorded))
        found[results] = between(found[results], "searches", quickstart.searches_table(recorded))
        found[times] = between(found[times], "quickstart", quickstart.seconds_table(recorded))
    section = report.section(records.read_all(root / records.FOLDER))
    found[results] = between(found[results], "protocol", section)
    pilots = report.section(records.read_all(root / PRETRAINED))
    found[pretrained] = between(found[pretrained], "pilots", pilots)
    if (root / alarm.RECORD).exists():
        found[rl] = between(found[rl], "alarm", alarm.tables(read_json(root / alarm.RECORD)))
    if (root / healthy.RECORD).exists():
        found[rl] = between(found[rl], "healthy", healthy.sentence(read_json(root / healthy.RECORD)))
    if (root / arms.RECORD).exists():
        found[results] = between(found[results], "arms", arms.table(read_json(root / arms.RECORD)))
    return found


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
