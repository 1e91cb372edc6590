"""Monte-Carlo estimates by several processes: every wave by one of them, and the numbers of one alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlprm.data.probes import ActionProbe
from rlprm.runtime.processes import Processes
from rlprm.stages.estimate import EstimateStore, estimate_states
from rlprm.stages.probe_actions import probe_actions
from tests.stages import test_estimate, test_probe_actions
from tests.toys.agents import SeededPolicy


class WaitingError(Exception):
    """Raised where a process would wait for the others."""


def estimated(folder: Path, processes: Processes) -> Any:
    return estimate_states(
        test_estimate.collected(),
        SeededPolicy(),
        test_estimate.config(wave_size=30),
        EstimateStore.create(folder, {}),
        processes,
    )


def probed(folder: Path, processes: Processes) -> Any:
    store = ActionProbe.create(folder, {})
    found = probe_actions(
        test_probe_actions.pool(), SeededPolicy(), test_probe_actions.config(), store, processes
    )
    return found, store.read()


def waves_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("wave-*")}


@pytest.mark.parametrize("stage", [estimated, probed])
def test_each_process_runs_its_waves_and_all_have_the_numbers_of_one(
    stage: Callable[[Path, Processes], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_first: list[Any] = []

    def gather_all(processes: Processes, own: Any) -> list[Any]:
        if processes.is_main:
            of_first.append(own)
        return [of_first[-1] if of_first else own] * processes.count

    monkeypatch.setattr(Processes, "gather_all", gather_all)
    alone = stage(tmp_path / "alone", Processes())
    whole = waves_of(tmp_path / "alone")
    assert len(whole) > 3

    def leave(_: Processes) -> None:
        raise WaitingError

    monkeypatch.setattr(Processes, "wait", leave)
    with pytest.raises(WaitingError):
        stage(tmp_path / "shared", Processes(1, 2))
    assert sorted(waves_of(tmp_path / "shared")) == sorted(whole)[1::2]
    monkeypatch.setattr(Processes, "wait", lambda _: None)
    assert stage(tmp_path / "shared", Processes(0, 2)) == alone
    assert waves_of(tmp_path / "shared") == whole
