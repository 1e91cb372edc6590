"""What the documentation shows works: code is run, commands are parsed, links and paths lead somewhere."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from rlprm.runtime.recipes import STAGE_SETTINGS
from tests.docs import blocks, commands
from tests.docs.blocks import PAGES, ROOT, Block

BLOCKS = list(blocks.blocks())
LANGUAGES = {"python", "bash", "yaml", "json", "text", "mermaid"}


def of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language and block.not_run is None]


def test_every_block_says_what_it_is_and_few_are_left_out() -> None:
    assert [str(block) for block in BLOCKS if block.language not in LANGUAGES] == []
    marked = [block for block in BLOCKS if block.not_run is not None]
    assert len(of("bash")) > 10
    assert len(marked) < len(BLOCKS) / 4
    assert {block.language for block in marked} <= {"python", "bash"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that looks like the top of the repository."""
    for path in ROOT.iterdir():
        if path.name not in ("runs", ".git", ".venv"):
            (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("RLPRM_API_KEY", "key")  # what a line before exports
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_could_start(page: Path, folder: Path) -> None:
    variables: dict[str, str] = {}
    for block in BLOCKS:
        if (
            block.page == page
            and block.language == "yaml"
            and (name := re.match(r"# (\S+\.yaml)\n", block.text))
        ):
            (folder / name.group(1)).write_text(block.text, encoding="utf-8")
        if block.page == page and block.language == "bash" and block.not_run is None:
            for words in commands.commands(block.text, variables):
                try:
                    commands.check(words)
                except (Exception, SystemExit) as error:
                    raise AssertionError(
                        f"{block}: {' '.join(words)}\n{type(error).__name__}: {error}"
                    ) from error


@pytest.mark.parametrize("block", [*of("yaml"), *of("json")], ids=str)
def test_data_can_be_read(block: Block) -> None:
    found = yaml.safe_load(block.text) if block.language == "yaml" else json.loads(block.text)
    only_comments = all(line.startswith("#") for line in block.text.splitlines())
    assert found is None if only_comments else isinstance(found, dict)


@cache
def known_options() -> frozenset[str]:
    """Settings of all stages, and options of the launchers that the pages name."""
    found = {"--help", "--help-all", "--config", "--version", "--overwrite", "--root", "--unset", "--key"}
    found |= {
        "--accelerate_config",
        "--num_processes",
        "--multi_gpu",
        "--nproc_per_node",
        "--parts",
        "--variants",
    }
    found |= {
        "--config_file",
        "--output",
        "--baseline",
        "--clients",
        "--seconds",
        "--host",
        "--port",
        "--groups",
        "--seeds",
        "--minutes",
        "--rows",
        "--updates",
        "--tiny",
        "--engines",
        "--episodes",
        "--latency",
        "--repeats",
        "--count",
        "--rounds",
        "--most_tokens",
    }
    for stage in STAGE_SETTINGS:
        found |= {f"--{name}" for name in commands.settings_named(stage)}
    return frozenset(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_named_in_the_text_exist(page: Path) -> None:
    named = [word for code in blocks.inline_code(page) for word in re.findall(r"(?:^|\s)(--[a-z]\w*)", code)]
    assert sorted({word for word in named if word not in known_options()}) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_row_of_a_table_belongs_to_a_header(page: Path) -> None:
    """A blank line within a table makes text of the rows below."""
    lines = [*blocks.prose(page).splitlines(), ""]
    first = [n for n, line in enumerate(lines) if line.startswith("|") and not lines[n - 1].startswith("|")]
    assert [lines[n] for n in first if not re.fullmatch(r"\|[\s:|-]+\|", lines[n + 1])] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:")):
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if not file.exists() or (anchor and anchor not in blocks.anchors(file)):
                dead.append(target)
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_named_in_the_text_exist(page: Path) -> None:
    paths = [
        code
        for code in blocks.inline_code(page)
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)+\.(py|yaml|md|sh|json)", code) and not code.startswith("runs/")
    ]
    missing = [
        path
        for path in paths
        if not any((base / path).exists() for base in (ROOT, ROOT / "rlprm", page.parent))
    ]
    assert missing == []


@pytest.mark.parametrize(
    "line",
    [
        "rlprm collect --num_taks 3",
        "rlprm label --trajectories runs/a --label_estimator nothing",
        "rlprm train-prm --config recipes/babyai/missing.yaml",
        "accelerate launch --config_file ds_configs/zero9.yaml scripts/sft.py",
        "python studies/rl/run.py train --no_such_option 1",
        "pip install rlprm",
        "rlprmm --help",
    ],
)
def test_a_wrong_command_is_noticed(line: str, folder: Path) -> None:
    (words,) = commands.commands(line, {})
    with pytest.raises((Exception, SystemExit)):
        commands.check(words)


def body(source: str) -> str:
    """A module's text without its docstring and without marks for the formatter."""
    source = source.replace("  # fmt: skip", "")
    return source.split('"""', 2)[2].strip() if source.startswith('"""') else source.strip()


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_python_is_an_example_that_is_run_or_a_module_that_can_be_imported(
    block: Block, folder: Path
) -> None:
    examples = {
        path.name: body(path.read_text(encoding="utf-8")) for path in (ROOT / "examples").glob("*.py")
    }
    if name := next((name for name, text in examples.items() if text == block.text.strip()), None):
        assert any(
            name in path.read_text(encoding="utf-8") for path in (ROOT / "tests/examples").glob("test_*.py")
        )
        return
    exec(compile(block.text, str(block), "exec"), {"__name__": "shown"})
