"""The commands ``rlprm report``, ``rlprm view`` and ``rlprm runs``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlprm.report.finding import find_run, find_runs
from rlprm.report.listing import compare, listing
from rlprm.report.page import write_page
from rlprm.report.server import serve_page

__all__ = ["report_command", "runs_command", "view_command"]


def report_command(words: Sequence[str]) -> str:
    """Write the report of one run or several; returns what to print."""
    parser = argparse.ArgumentParser(
        prog="rlprm report",
        description="Write one HTML page of what runs did: tables, curves, every trajectory.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, or of one of its stages")
    parser.add_argument("--output", type=Path, help="the page (default: report.html in the first run)")
    arguments = parser.parse_args(words)
    runs = [find_run(folder) for folder in arguments.runs]
    path = arguments.output or runs[0].folder / "report.html"
    write_page(runs, path)
    return f"{path}  ({path.stat().st_size / 1e6:.1f} MB; open it in a browser, it needs no network)"


def view_command(words: Sequence[str]) -> str:
    """Serve the report of runs on this machine until the user stops it; returns what to print then."""
    parser = argparse.ArgumentParser(
        prog="rlprm view",
        description="Show the report of runs in a browser, made anew when the page is loaded.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, or of one of its stages")
    parser.add_argument("--port", type=int, default=0, help="on loopback (default: a free one)")
    arguments = parser.parse_args(words)
    for folder in arguments.runs:
        find_run(folder)  # a mistake is reported now
    serve_page(arguments.runs, arguments.port)
    return "stopped"


def runs_command(words: Sequence[str]) -> str:
    """List the runs below a folder, or compare some; returns the table."""
    parser = argparse.ArgumentParser(
        prog="rlprm runs", description="List the runs below a folder, or compare some that are named."
    )
    parser.add_argument("folder", nargs="*", metavar="FOLDER", default=["runs"], help="default: runs")
    arguments = parser.parse_args(words)
    if len(arguments.folder) > 1:
        return compare([find_run(folder) for folder in arguments.folder])
    return listing(find_runs(arguments.folder[0]), arguments.folder[0])
