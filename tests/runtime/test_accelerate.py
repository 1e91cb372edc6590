"""Work shared by several processes: all of it done once, and the results in order."""

from __future__ import annotations

import pytest
from torch import distributed

from rlprm.errors import ConfigError
from rlprm.runtime.processes import SINGLE_PROCESS, Processes, is_first, start_processes


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("parts", [0, 1, 4, 7])
def test_every_part_is_done_once_and_its_result_stands_in_its_place(
    count: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [Processes(rank, count) for rank in range(count)]
    shares = [member.share(range(parts)) for member in members]
    assert sorted(part for share in shares for part in share) == list(range(parts))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    results = [[part * part for part in share] for share in shares]

    def exchange(into: list[list[int]], own: list[int]) -> None:
        assert own in results
        into[:] = results

    monkeypatch.setattr(distributed, "all_gather_object", exchange)
    for member, own in zip(members, results, strict=True):
        assert member.gather(own) == [part * part for part in range(parts)]
    assert [member.is_main for member in members] == [True] + [False] * (count - 1)


def test_a_process_alone_meets_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlprm.runtime.processes.PartialState", lambda **_: pytest.fail("looked for others"))
    assert start_processes() is SINGLE_PROCESS
    SINGLE_PROCESS.wait()
    assert is_first()
    monkeypatch.setenv("RANK", "1")
    assert not is_first()


def test_processes_that_do_not_find_one_another_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Alone:
        num_processes = 1

    monkeypatch.setattr("rlprm.runtime.processes.PartialState", lambda **_: Alone())
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="2 processes were launched, but this one sees 1"):
        start_processes()
