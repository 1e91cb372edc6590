"""The quickstart's headline figures: their record, a new run compared with it, and the tables of pages.

python -m studies.quickstart record runs/quickstart       # adds the run to docs/results/quickstart.json
python -m studies.quickstart compare runs/quickstart      # exit status 1 if a figure moved by over 6 points
"""

from __future__ import annotations

from studies.quickstart.record import RECORD, compare, headline, record
from studies.quickstart.tables import searches_table, seconds_table, short_table, table

__all__ = [
    "RECORD",
    "compare",
    "headline",
    "record",
    "searches_table",
    "seconds_table",
    "short_table",
    "table",
]
