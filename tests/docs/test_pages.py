"""Tables of pages are those that ``python scripts/make_pages.py`` would write now from the records."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from rlprm.runtime.files import write_json
from studies.protocol import records
from tests.docs.blocks import ROOT
from tests.toys import protocol as toy
from tests.toys.quickstart import run_of

BLOCKS = re.compile(r"<!-- (\w+): begin.*?-->\n.*?<!-- \1: end -->", re.DOTALL)
PAGES = ("README.md", "docs/results.md", "docs/performance.md", "docs/pretrained.md", "docs/rl.md")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    specification = importlib.util.spec_from_file_location("make_pages", ROOT / "scripts/make_pages.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", PAGES)
def test_the_tables_are_those_of_the_records(script: ModuleType, name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert text == script.pages()[ROOT / name], "run: python scripts/make_pages.py"


def test_a_new_record_changes_the_pages_between_the_markers_only(script: ModuleType, tmp_path: Path) -> None:
    for name in PAGES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    before = {name: (tmp_path / name).read_text(encoding="utf-8") for name in PAGES}
    records.write(tmp_path / records.FOLDER / "r.json", toy.record(7, {toy.REFERENCE: [1, 1, 0, 0]}))
    write_json(
        tmp_path / "docs/results/quickstart.json",
        {"runs": [run_of(0, {"greedy": 12.5, "best of 16, orm": 40.0})]},
    )
    after = {path.relative_to(tmp_path).as_posix(): text for path, text in script.pages(tmp_path).items()}
    assert "### babyai, primary: one run" in after["docs/results.md"]
    assert "greedy 12.5 [" in after["README.md"]
    assert "| ORM | 40.0 [" in after["README.md"]
    assert "| greedy | 12.5 [" in after["docs/results.md"]
    assert "| `all` | 540 |" in after["docs/performance.md"]
    assert "No unit has been recorded yet." in after["docs/pretrained.md"]
    for name in PAGES:
        assert BLOCKS.sub("", before[name]) == BLOCKS.sub("", after[name])
        assert len(BLOCKS.findall(before[name])) == len(BLOCKS.findall(after[name])) > 0


def test_a_page_without_markers_is_refused(script: ModuleType) -> None:
    with pytest.raises(ValueError, match="markers of protocol are missing"):
        script.between("text", "protocol", "block")
