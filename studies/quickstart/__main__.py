"""Record a finished quickstart, or compare a run with the record.

python -m studies.quickstart record runs/quickstart       # adds the run to docs/results/quickstart.json
python -m studies.quickstart compare runs/quickstart      # exit status 1 if a figure moved by over 6 points
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rlprm.runtime.files import read_json, write_atomically
from studies.quickstart.record import POINTS, RECORD, compare, headline, record


def main() -> None:
    """Record a run, or compare a run with the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["record", "compare"])
    parser.add_argument("folder", type=Path, help="of a finished quickstart")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--points", type=float, default=POINTS)
    parser.add_argument("--table", type=Path, help="file that the comparison is written to")
    arguments = parser.parse_args()
    if arguments.part == "record":
        record(arguments.folder, arguments.record)
        return
    text, moved = compare(headline(arguments.folder), read_json(arguments.record), arguments.points)
    print(text)
    if arguments.table:
        write_atomically(arguments.table, text + "\n")
    if moved:
        sys.exit(f"moved by more than {arguments.points:g} points, or missing: {'; '.join(moved)}")


if __name__ == "__main__":
    main()
