"""Rollouts by several engines on the same tasks: this process, TRL's loop, and a vLLM server.

    python scripts/bench/rollouts.py --model tiny --engines here trl            # an embedded random model
    python scripts/bench/rollouts.py --model runs/quickstart/policy --episodes 16 64 --latency 0 0.05

``here`` is this process, ``trl`` the loop of TRL's GRPOTrainer over environments (``trl_loop.py``),
``server`` a vLLM server whose episodes do not wait for each other, and ``lockstep`` the same server turn by
turn. Each episode has the same number of turns, decoding is greedy, and nothing is trained. The processor
seconds include those of the server. ``times the first`` divides them by those of the first engine. ``same
tokens`` counts episodes with the first engine's token ids.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from rlprm.models.loading import load_causal_lm, load_tokenizer
from rlprm.models.tiny import tiny_model
from rlprm.models.tokenizer import train_tokenizer
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
SERVED = {"lockstep", "server"}
ENGINES = ("here", "trl", "lockstep", "server")
_CONTEXT = 2048


class Listener:
    """Answers after a fixed time, for a fixed number of turns, in words that name the task.

    No two episodes share a context: shared ones would be read once here, and several times by TRL.
    """

    def __init__(self, task: Task) -> None:
        self.left, self.latency = int(task.spec["turns"]), float(task.spec["latency"])
        self.number = task.id

    def reset(self) -> str:
        """Begin."""
        return f"Say what you see and go on. Corridor {self.number} has twelve doors, each of them closed."

    def step(self, action: str) -> Turn:
        """Wait, and answer."""
        if self.latency:
            time.sleep(self.latency)
        self.left -= 1
        stop = None if self.left else StopReason.ENV_LIMIT
        seen = f"You see closed door {self.left} of corridor {self.number}, which goes on to the left."
        return Turn(seen, stop=stop)

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


def tiny_policy(folder: Path, *, size: str = "s") -> str:
    """Write an embedded model with random weights, and return its folder."""
    spoken = [word for task in tasks(Split.TRAIN, 0, 64) for word in (Listener(task).reset(), task.id)]
    tokenizer = train_tokenizer([*spoken, Listener(tasks(Split.TRAIN, 0, 1)[0]).step("").observation])
    tiny_model(tokenizer, size=size, context_length=_CONTEXT).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@dataclass(frozen=True)
class Run:
    """One run of an engine."""

    wall: float
    processor: float
    """Seconds, those of the server included."""
    sampled: int
    token_ids: list[list[int]]
    """Of each episode, its closing token included."""


Engine = Callable[[list[Task]], tuple[list[list[int]], int]]
"""From tasks to the token ids of the episodes and the number of sampled tokens."""


def in_waves(how: Callable[[list[tuple[Task, int]]], list[Trajectory]], turns: int) -> Engine:
    """Return an engine that runs a wave of this package.

    Raises:
        AssertionError: if an episode has another number of turns.
    """

    def run(listed: list[Task]) -> tuple[list[list[int]], int]:
        done = how([(task, 0) for task in listed])
        assert all(len(t.steps) == turns for t in done), done[0].error
        return [list(t.token_ids) for t in done], sum(t.action_tokens for t in done)

    return run


def engines_of(given: argparse.Namespace, model: str, url: str) -> dict[str, Engine]:
    """Return the engines that were asked for, by name."""
    made: dict[str, Engine] = {}
    greedy = {
        "model": model, "max_new_tokens": given.tokens, "context_length": _CONTEXT, "temperature": 0.0,
        "dtype": given.dtype,
    }  # fmt: skip
    here = PolicyConfig(**greedy).load_policy()
    made["here"] = in_waves(lambda jobs: rollout(jobs, here, EpisodeSetting()), given.turns)
    if "trl" in given.engines:
        from trl_loop import TrlLoop

        loop = TrlLoop(
            load_causal_lm(model, dtype=given.dtype), here.renderer, load_tokenizer(model),
            sys.modules[__name__], turns=given.turns, tokens=given.tokens, context=_CONTEXT,
        )  # fmt: skip

        def by_trl(listed: list[Task]) -> tuple[list[list[int]], int]:
            found = loop(listed)
            return found.token_ids, sum(found.sampled)

        made["trl"] = by_trl
    if url:
        there = PolicyConfig(**greedy, server=[url]).load_policy()
        made["lockstep"] = in_waves(lambda jobs: lock_step(jobs, there, EpisodeSetting()), given.turns)
        made["server"] = in_waves(lambda jobs: rollout(jobs, there, EpisodeSetting()), given.turns)
    return {name: made[name] for name in given.engines}


def measured(run: Engine, listed: list[Task], group: int | None) -> Run:
    """Run an engine once."""

    def others() -> float:
        return 0.0 if group is None else seconds_of(group)

    wall, own, before = time.perf_counter(), time.process_time(), others()
    ids, sampled = run(listed)
    spent = time.process_time() - own + others() - before
    return Run(time.perf_counter() - wall, spent, sampled, ids)


def line(name: str, runs: Sequence[Run], first: Sequence[Run], latency: float) -> str:
    """Return a line of the table: medians, and what compares them with the first engine."""
    wall = statistics.median(run.wall for run in runs)
    spent = statistics.median(run.processor for run in runs)
    count, base = len(runs[0].token_ids), statistics.median(run.processor for run in first)
    same = sum(a == b for a, b in zip(runs[0].token_ids, first[0].token_ids, strict=True))
    return (
        f"| {count} | {1000 * latency:.0f} ms | {name} | {count / wall:.1f} | {runs[0].sampled / wall:.0f} | "
        f"{spent / count:.4f} | {spent / base:.2f} | {same} of {count} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model", required=True, help="folder of a policy; tiny: an embedded random model")
    parser.add_argument("--size", default="s", help="of --model tiny: xs, s, m, l")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--episodes", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--latency", type=float, nargs="+", default=[0.0, 0.05], help="seconds of a step")
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=24, help="longest message")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each, alternating")
    parser.add_argument(
        "--threads", type=int, default=1, help="of this process; more cost time beside others"
    )
    parser.add_argument("--dtype", default="float32", help="weights here and in TRL; the server has its own")
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--without_server", action="store_true", help="leave out the engines on a server")
    given = parser.parse_args()
    if given.without_server:
        given.engines = [name for name in given.engines if name not in SERVED]
    torch.set_num_threads(given.threads)
    logging.getLogger("trl").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        model = (
            tiny_policy(Path(folder) / "policy", size=given.size) if given.model == "tiny" else given.model
        )
        url, group = "", None
        if SERVED & set(given.engines):
            url, group = stack.enter_context(server_of(model, folder, given.port))
        engines = engines_of(given, model, url)
        for run in engines.values():  # a warm-up
            run(tasks(Split.TRAIN, 0, 2, turns=given.turns))
        names = (
            "episodes, step, engine, episodes/s, tokens/s, processor s/episode, times the first, same tokens"
        )
        print(f"| {names.replace(', ', ' | ')} |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for latency in given.latency:
            for count in given.episodes:
                listed = tasks(Split.TRAIN, 0, count, turns=given.turns, latency=latency)
                found: dict[str, list[Run]] = {name: [] for name in engines}
                for _ in range(given.repeats):
                    for name, run in engines.items():
                        found[name].append(measured(run, listed, group))
                for name, runs in found.items():
                    print(line(name, runs, found[given.engines[0]], latency), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"most memory of this process: {peak:.2f} GB")


if __name__ == "__main__":
    main()
