"""The page: what it holds, what it warns of, and that text of a model is never markup."""

from __future__ import annotations

import base64
import gzip
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rlprm import cli
from rlprm.report.finding import find_run
from rlprm.report.packing import Packer, packed
from rlprm.report.page import write_page
from rlprm.report.sources import candidates, sources_of
from tests.report.runs import HOSTILE, evaluation, record, rl
from tests.toys.pipeline import Pipeline, refused


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def page_of(*folders: Path) -> str:
    path = folders[0] / "report.html"
    write_page([find_run(folder) for folder in folders], path)
    return path.read_text(encoding="utf-8")


def data_of(page: str, name: str) -> Any:
    (text,) = re.findall(rf'<script type="text/plain"[^>]*id="{name}">([^<]*)</script>', page)
    return json.loads(gzip.decompress(base64.b64decode(text)))


def test_a_page_has_results_warnings_and_every_trajectory(tmp_path: Path) -> None:
    evaluation(tmp_path / "evaluation")
    rl(tmp_path / "rl")
    record(tmp_path / "agentprm", "train-prm", eval_auc_last=0.51, steps=30)
    record(tmp_path / "rollouts", "collect", success_rate=0.01, trajectories=100)
    page = page_of(tmp_path)
    for text in (
        "best of 2, prm (last)", "50.0 [10.0, 90.0]",
        "closes 90 % of the gap", "One sample succeeds in 2.0 %", "values of prm do not tell success",
        "The alarm of reward hacking rang: turns rose at iteration 2",
        "hardly tell success from failure (AUC 0.51)",
        "1.0 % of the episodes succeed",
        "012345678", "learning_rate",
    ):  # fmt: skip
        assert text in page, text
    indexes = data_of(page, "index")
    assert [(i["kind"], i["count"]) for i in indexes] == [("pool", 6), ("search", 1), ("rl", 6)]
    assert indexes[0]["rules"] == {"prm": "min", "other": "last"}
    assert indexes[0]["ranks"]["prm"][:2] == [0.0, 0.1]
    assert indexes[2]["columns"]["it"] == [0, 0, 1, 1, 2, 2]
    first, second, *_ = data_of(page, "p0-0")
    assert (first["t"], first["ok"], second["ok"]) == ("task-0", False, True)
    assert second["steps"][1]["a"]["c"] == f"say {HOSTILE}"
    assert second["s"]["prm"] == {"i": 0.5, "v": [0.1, 0.2, 0.9], "p": [-0.4, 0.1, 0.7], "r": 0.1}
    assert second["steps"][0]["p"] == pytest.approx(0.3679 ** len(second["steps"][0]["ids"]), abs=1e-3)
    (searched,) = data_of(page, "p1-0")
    assert [node["chosen"] for node in searched["nodes"]] == [False, True, False]


def test_text_of_a_model_or_a_file_is_never_markup(tmp_path: Path) -> None:
    evaluation(tmp_path / "evaluation")
    record(tmp_path / "other", "collect", {HOSTILE: HOSTILE}, **{HOSTILE: HOSTILE, "success": 0.5})
    hostile = tmp_path / "<img src=x onerror=alert(1)>"
    record(hostile, "sft")
    elements = _Elements()
    page = page_of(tmp_path)
    elements.feed(page)
    assert not [tag for tag, _ in elements.found if tag in ("img", "iframe", "object", "link")]
    assert not [attrs for _, attrs in elements.found if any(name.startswith("on") for name in attrs)]
    scripts = [attrs for tag, attrs in elements.found if tag == "script"]
    assert [attrs for attrs in scripts if attrs.get("type") != "text/plain"] == [{}]
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_pages_own_script_is_the_one_that_its_policy_allows(tmp_path: Path) -> None:
    import hashlib

    page = page_of(evaluation(tmp_path))
    (digest,) = re.findall(r"script-src 'sha256-([^']+)'", page)
    script = page.rpartition("<script>")[2].partition("</script>")[0]
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() == digest


def test_runs_stand_side_by_side_with_what_differs(tmp_path: Path) -> None:
    a, b = evaluation(tmp_path / "a", rate=0.5), evaluation(tmp_path / "b", rate=0.75)
    record(b, "evaluate", {"seed": 7, "num_tasks": 3, "temperature": 1.0})
    page = page_of(a, b)
    section = page.partition("The runs side by side")[2].partition("</section>")[0]
    assert "evaluate: seed" in section
    assert "temperature" not in section
    assert "75.0 [10.0, 90.0]" in section
    assert "50.0 [10.0, 90.0]" in section


def test_a_candidate_is_where_the_index_says_whatever_the_portions(tmp_path: Path) -> None:
    run = find_run(evaluation(tmp_path))
    made = [dict(candidate) for candidate in list(candidates(sources_of(run)[0])) * 40]
    for number, candidate in enumerate(made):
        candidate["m"] = [{"c": "x" * 9_000}]
        candidate["n"] = number
    packer = Packer()
    portions = [json.loads(gzip.decompress(base64.b64decode(text))) for text in packer.portions(made)]
    columns = packer.index()["columns"]
    assert len(portions) > 3
    for number in range(len(made)):
        found = portions[columns["portion"][number]][columns["place"][number]]
        assert found["n"] == number == columns["sample"][number]


def test_half_a_character_and_what_is_not_finite_can_be_packed() -> None:
    assert json.loads(gzip.decompress(base64.b64decode(packed({"a": "x\ud83d"})))) == {"a": "x?"}
    with pytest.raises(ValueError, match="JSON compliant"):
        packed(float("nan"))


def test_a_run_that_goes_on_has_a_report(tmp_path: Path) -> None:
    rl(tmp_path / "rl")
    (tmp_path / "rl" / "stage.json").unlink()
    (tmp_path / "rl" / "summary.json").unlink()
    (tmp_path / "rl" / "before.json").write_text("{}")
    with (tmp_path / "rl" / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 3, "roll')  # the line that is being written
    page = page_of(tmp_path)
    assert "This run goes on, or was killed. 3 iterations." in page


@pytest.mark.parametrize("content", ["", "[]", "null", "{", '{"evaluation": null, "quality": null}'])
def test_a_damaged_summary_costs_its_part_alone(tmp_path: Path, content: str) -> None:
    evaluation(tmp_path / "evaluation")
    (tmp_path / "evaluation" / "summary.json").write_text(content)
    record(tmp_path / "policy", "sft", train_loss=0.25)
    page = page_of(tmp_path)
    assert "train_loss" in page
    assert data_of(page, "index")[0]["count"] == 6


def test_commands_of_a_real_run(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "page.html"
    assert cli.main(["report", pipeline.rollouts, pipeline.agentprm, "--output", str(output)]) == 0
    assert "needs no network" in capsys.readouterr().out
    page = output.read_text(encoding="utf-8")
    (index,) = data_of(page, "index")
    assert index["count"] == 64
    assert index["tokens"]  # the policy's tokenizer is there
    assert cli.main(["runs", str(Path(pipeline.rollouts).parent)]) == 0
    listed = capsys.readouterr().out
    assert "collect" in listed
    assert "train-prm" in listed


def test_folders_without_a_run_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "nowhere: no such folder" in refused(capfd, "report", str(tmp_path / "nowhere"))
    assert "no stage has written anything here" in refused(capfd, "report", str(tmp_path))
    assert "no such folder" in refused(capfd, "runs", str(tmp_path / "nowhere"))
    assert "port: got 99999999" in refused(
        capfd, "view", str(evaluation(tmp_path / "e")), "--port", "99999999"
    )


def test_a_page_that_cannot_be_written_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder, taken = evaluation(tmp_path / "e"), tmp_path / "taken"
    taken.write_text("a file where a folder is asked for")
    assert str(taken) in refused(capfd, "report", str(folder), "--output", str(taken / "page.html"))
