"""What docs/serving.md shows is run as written, on a free port and with a key of the test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.blocks import Block, blocks
from tests.serving.test_prm_endpoints import REFUSED
from tests.toys.serving import served

SHOWN = [block for block in blocks() if block.page.name == "serving.md"]
URL = "http://127.0.0.1:8001"


def with_curl() -> list[Block]:
    found = [block for block in SHOWN if "\ncurl " in f"\n{block.text}"]
    assert len(found) == 2
    return found


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_lines_with_curl_work_as_written(
    url: str, prm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (request,) = [block for block in SHOWN if block.language == "json"]
    (tmp_path / "request.json").write_text(request.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    plain, with_key = (block.text.replace(URL, "$URL") for block in with_curl())
    done = subprocess.run(
        ["bash", "-ec", plain], env={**os.environ, "URL": url}, capture_output=True, text=True, check=True
    )
    scores, health, info, *metrics = done.stdout.splitlines()
    (row,) = json.loads(scores)["scores"]
    assert len(row["values"]) == len(row["progress"]) == 2
    assert row["score"] == row["values"][-1]
    assert json.loads(health) == {"status": "ok"}
    assert json.loads(info)["revision"] == json.loads(scores)["revision"]
    assert any(line.startswith("rlprm_prm_requests_total") for line in metrics)

    monkeypatch.setenv("RLPRM_API_KEY", "s3cret")
    (line,) = [line for line in with_key.splitlines() if line.startswith("curl ")]
    with served(prm, api_key_env="RLPRM_API_KEY") as locked:
        done = subprocess.run(
            ["bash", "-ec", line],
            env={**os.environ, "URL": locked},
            capture_output=True,
            text=True,
            check=True,
        )
    assert json.loads(done.stdout)["takes_messages"] is True


def test_the_lines_of_python_work_as_written(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = [b for b in SHOWN if b.language == "python" and "scorers.build" in b.text]
    exec(compile(block.text.replace(URL, url), str(block), "exec"), {})
    assert capsys.readouterr().out == "tests.toys.corridor action\n"


def test_every_field_of_a_request_is_on_the_page() -> None:
    page = SHOWN[0].page.read_text(encoding="utf-8")
    from rlprm.serving.prm_requests import MessageIn, MessagesIn, ScoreRequest, StepIn, TokensIn

    for form in (ScoreRequest, TokensIn, MessagesIn, MessageIn, StepIn):
        for name in form.model_fields:
            assert f"`{name}`" in page or f'"{name}"' in page, name
    assert REFUSED
