"""WebShop: the benchmark of official data runs, and builds what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench" / "webshop.py"


def test_a_generated_shop_is_built_opened_and_searched(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    options = ["--products", "300", "--searches", "20", "--folder", str(tmp_path), "--json", str(file)]
    done = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=True)
    figures = json.loads(file.read_text())
    assert json.loads(done.stdout) == figures
    build, search = figures["build"], figures["search"]
    assert build["documents"] == 300
    assert build["goals"] % 16 == 0
    assert 0 < build["goals"] < 300 * 16
    assert min(*build.values(), *search.values()) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]
