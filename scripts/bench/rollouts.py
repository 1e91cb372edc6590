"""Rollouts by three engines: this process, a vLLM server in lock step, and one whose episodes do not wait.

    python scripts/bench/rollouts.py --model runs/quickstart/policy --episodes 16 64 --latency 0 0.05

Each episode has the same number of turns. The table has episodes a second, sampled tokens a second, and
processor seconds an episode, those of the server included.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from rlprm.policies.base import LoadedPolicy
from rlprm.policies.config import PolicyConfig
from rlprm.rollouts.episode import Episode, advance_all, episode_seed, start_episodes
from rlprm.rollouts.waves import rollout
from rlprm.serving.vllm_line import line_of, url_of
from rlprm.serving.vllm_server import python_of_vllm, running, wait_for
from rlprm.serving.vllm_settings import ServeConfig
from rlprm.types import End, EpisodeSetting, Message, Outcome, Split, StopReason, Task, Trajectory, Turn

ROUND_LIMIT = 1000
CONCURRENT = 1024
_CONTEXT = 2048


class Listener:
    """Answers a fixed text after a fixed time, for a fixed number of turns."""

    def __init__(self, task: Task) -> None:
        self.left, self.latency = int(task.spec["turns"]), float(task.spec["latency"])

    def reset(self) -> str:
        """Begin."""
        return "Say what you see and go on. The corridor has twelve doors, and each of them is closed."

    def step(self, action: str) -> Turn:
        """Wait, and answer."""
        if self.latency:
            time.sleep(self.latency)
        self.left -= 1
        stop = None if self.left else StopReason.ENV_LIMIT
        return Turn("You see a closed door and a corridor that goes on to the left.", stop=stop)

    def outcome(self) -> Outcome:
        """Never succeed."""
        return Outcome(0.0, False, "none")


def tasks(split: Split, start: int, count: int, *, turns: int = 8, latency: float = 0.0) -> list[Task]:
    """Tasks with different ids."""
    spec = {"turns": turns, "latency": latency}
    return [Task(__name__, str(number), split, spec) for number in range(start, start + count)]


def make(task: Task, *, end: End) -> Listener:
    """Make the environment of a task."""
    return Listener(task)


def opening(*, end: End, style: str) -> list[Message]:
    """No instructions."""
    return []


def demonstrate(task: Task, *, end: End) -> list[str]:
    """One word a turn."""
    return ["go"] * int(task.spec["turns"])


def lock_step(
    jobs: list[tuple[Task, int]], policy: LoadedPolicy, setting: EpisodeSetting
) -> list[Trajectory]:
    """Run a wave turn by turn, whatever the policy allows."""
    seeded = [(task, sample, episode_seed(0, task, sample)) for task, sample in jobs]
    episodes = [e for e in start_episodes(seeded, setting, policy) if isinstance(e, Episode)]
    while alive := [episode for episode in episodes if episode.stop is None]:
        talks = [episode.conversation for episode in alive]
        advance_all(alive, policy.act(talks, [episode.next_seed() for episode in alive]))
    return [episode.trajectory() for episode in episodes]


def seconds_of(group: int | None) -> float:
    """Return the processor seconds of a process group so far; 0 for none."""
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def server_of(model: str, folder: str, port: int) -> Iterator[tuple[str, int]]:
    """Run a server; yields its address and its process group."""
    config = ServeConfig(model=model, port=port, log_dir=folder, cpu_cache_gib=2)
    line = line_of(
        config, 0, python=python_of_vllm(""), model=str(Path(model).absolute()), context_length=_CONTEXT,
        on_gpu=torch.cuda.is_available(),
    )  # fmt: skip
    with running(config, [line]) as servers:
        wait_for(config, servers)
        yield url_of(config, 0), servers[0].pid


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder of a policy")
    parser.add_argument("--episodes", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--latency", type=float, nargs="+", default=[0.0, 0.05], help="seconds of a step")
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=24, help="longest message")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each, alternating")
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--without_server", action="store_true", help="this process alone")
    given = parser.parse_args()
    settings = {"model": given.model, "max_new_tokens": given.tokens, "context_length": _CONTEXT}
    with ExitStack() as stack:
        here = PolicyConfig(**settings, dtype="auto").load_policy()
        engines = {"this process": lambda jobs: rollout(jobs, here, EpisodeSetting())}
        group = None
        if not given.without_server:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            url, group = stack.enter_context(server_of(given.model, folder, given.port))
            there = PolicyConfig(**settings, server=[url]).load_policy()
            engines |= {
                "server, lock step": lambda jobs: lock_step(jobs, there, EpisodeSetting()),
                "server": lambda jobs: rollout(jobs, there, EpisodeSetting()),
            }
        print("| episodes | step | engine | episodes/s | tokens/s | processor s/episode |")
        print("| --- | --- | --- | --- | --- | --- |")
        for latency in given.latency:
            for count in given.episodes:
                listed = tasks(Split.TRAIN, 0, count, turns=given.turns, latency=latency)
                jobs = [(task, 0) for task in listed]
                found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in engines}
                for _ in range(given.repeats):
                    for name, run in engines.items():
                        wall, own, others = time.perf_counter(), time.process_time(), seconds_of(group)
                        done = run(jobs)
                        spent = time.process_time() - own + seconds_of(group) - others
                        sampled = sum(t.action_tokens for t in done)
                        found[name].append((time.perf_counter() - wall, spent, sampled))
                        assert all(len(t.steps) == given.turns for t in done), done[0].error
                for name, runs in found.items():
                    wall, spent = (statistics.median(run[i] for run in runs) for i in (0, 1))
                    print(
                        f"| {count} | {1000 * latency:.0f} ms | {name} | {count / wall:.1f} | "
                        f"{runs[0][2] / wall:.0f} | {spent / count:.3f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
