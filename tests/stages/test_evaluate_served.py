"""``rlprm evaluate`` with a PRM behind a server: the same numbers as with the PRM in the process."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlprm.errors import MismatchError, ServiceError
from rlprm.models.manifest import Manifest
from rlprm.runtime.config import parse
from rlprm.stages import evaluate
from rlprm.stages.settings import EvaluateConfig
from tests.toys.pipeline import EPISODES, Pipeline, summary_of
from tests.toys.serving import served


def arguments(pipeline: Pipeline, url: str, folder: Path, *more: str) -> list[str]:
    return [
        *EPISODES, "--model", pipeline.policy, "--scorers.served", f"{{kind: http, url: '{url}'}}", *more,
        "--num_tasks", "3", "--num_dev_tasks", "3", "--budgets", "1", "4", "--chosen_at", "4", "--beams",
        "2x2", "--temperature", "1.5", "--max_new_tokens", "8", "--output_dir", str(folder),
    ]  # fmt: skip


def test_best_of_n_and_beams_are_those_of_the_prm_in_the_process(pipeline: Pipeline, tmp_path: Path) -> None:
    with served(pipeline.agentprm, max_trajectories=16) as url:
        both = arguments(pipeline, url, tmp_path, "--scorers.agentprm", pipeline.agentprm)
        evaluate.run(parse(EvaluateConfig, both))
    rows: dict[str, list[dict[str, Any]]] = {"served": [], "agentprm": []}
    for row in summary_of(tmp_path)["evaluation"]:
        name = str(row.pop("scorer")).removesuffix("_x_policy")
        if name in rows:
            row.pop("compute", None)
            rows[name].append(row)
    assert len(rows["served"]) == 6  # best of 1 and 4 and a beam, with and without the policy's confidence
    assert {row["strategy"] for row in rows["served"]} == {"best_of_n", "beam"}
    assert all(row["prm_tokens"] > 0 for row in rows["served"])
    for there, here in zip(rows["served"], rows["agentprm"], strict=True):
        assert there == here


def test_a_server_with_another_prm_and_one_of_another_setting_are_refused(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    with served(pipeline.agentprm) as url:
        first = parse(EvaluateConfig, arguments(pipeline, url, tmp_path / "a")).revisions()
        assert url not in str(first)
    with served(pipeline.orm) as url:
        second = parse(EvaluateConfig, arguments(pipeline, url, tmp_path / "a")).revisions()
        assert first["served"].partition("-")[2] != second["served"].partition("-")[2]
    shutil.copytree(pipeline.agentprm, tmp_path / "prm")
    replace(Manifest.load(pipeline.agentprm), end="on_success").save(tmp_path / "prm")
    with served(str(tmp_path / "prm")) as url:
        config = parse(EvaluateConfig, arguments(pipeline, url, tmp_path / "a"))
        with pytest.raises(MismatchError, match="end: trained with 'on_success', used with"):
            evaluate.run(config)
    config = parse(EvaluateConfig, arguments(pipeline, url, tmp_path / "a"))
    config.scorers = {"served": {"kind": "http", "url": url, "attempts": 1}}
    with pytest.raises(ServiceError, match="ConnectError"):
        evaluate.run(config)
    assert not (tmp_path / "a").exists()
