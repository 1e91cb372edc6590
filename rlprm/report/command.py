"""The commands ``rlprm report``, ``rlprm view`` and ``rlprm runs``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlprm.report.finding import find_run, find_runs
from rlprm.report.listing import compare, listing
from rlprm.report.page import write_page
from rlprm.report.server import serve_page

__all__ = ["COMMANDS", "parser_of", "report_command", "runs_command", "view_command"]

COMMANDS = {
    "report": "Write one HTML page of what runs did: tables, curves, every trajectory.",
    "view": "Show the report of runs in a browser of this machine, made anew for every load.",
    "runs": "List the runs below a folder, or compare some that are named.",
}
"""Name of a command → what it does."""
_RUN = "folder of a run, or of one of its stages"


def parser_of(command: str) -> argparse.ArgumentParser:
    """Return the parser of the arguments of a command."""
    parser = argparse.ArgumentParser(prog=f"rlprm {command}", description=COMMANDS[command])
    if command == "runs":
        about = "one folder with runs in it, or several runs (default: runs)"
        parser.add_argument("runs", nargs="*", metavar="FOLDER", default=["runs"], help=about)
        return parser
    parser.add_argument("runs", nargs="+", metavar="RUN", help=_RUN)
    if command == "report":
        parser.add_argument("--output", type=Path, help="the page (default: report.html in the first run)")
    else:
        parser.add_argument("--port", type=int, default=0, help="on loopback (default: a free one)")
    return parser


def report_command(words: Sequence[str]) -> str:
    """Write the report of one run or several; returns what to print."""
    arguments = parser_of("report").parse_args(words)
    runs = [find_run(folder) for folder in arguments.runs]
    path = arguments.output or runs[0].folder / "report.html"
    write_page(runs, path)
    return f"{path}  ({path.stat().st_size / 1e6:.1f} MB; open it in a browser, it needs no network)"


def view_command(words: Sequence[str]) -> str:
    """Serve the report of runs on this machine until the user stops it; returns what to print then."""
    arguments = parser_of("view").parse_args(words)
    for folder in arguments.runs:
        find_run(folder)  # a mistake is reported now
    serve_page(arguments.runs, arguments.port)
    return "stopped"


def runs_command(words: Sequence[str]) -> str:
    """List the runs below a folder, or compare some; returns the table."""
    folders = parser_of("runs").parse_args(words).runs
    if len(folders) > 1:
        return compare([find_run(folder) for folder in folders])
    return listing(find_runs(folders[0]), folders[0])
