"""Load of a PRM server: clients that ask one after another, without pauses, for a while.

python scripts/bench/serve_prm.py --seconds 60 --clients 64                   a tiny random PRM, served here
python scripts/bench/serve_prm.py --url http://127.0.0.1:8001                 a server that runs already

Every client sends one trajectory a request, with 1 to 8 actions. Half of the trajectories are sent twice, by
different clients, and their scores are compared. It prints requests, errors, latencies (p50, p95) and
trajectories per second, and ends with status 1 if there was an error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from rlprm.data.rendering import ChatRenderer
from rlprm.models.loading import load_scalar_model
from rlprm.models.manifest import Manifest
from rlprm.models.tiny import tiny_model
from rlprm.models.tokenizer import train_tokenizer

_TOLERANCE = 1e-4
"""Largest difference of two scores of one trajectory; batches of other shapes round differently."""


@dataclass
class Tally:
    """What the clients have seen."""

    seconds: list[float] = field(default_factory=list)
    problems: Counter[str] = field(default_factory=Counter)
    scores: dict[int, list[float]] = field(default_factory=dict)
    """Seed of a trajectory → its values, as they were first seen."""
    compared: int = 0


def save_tiny_prm(folder: Path, size: str) -> None:
    """Write a PRM with random weights and a random head."""
    tokenizer = train_tokenizer(["You are in cell 3. Go left or right, then finish."], vocab_size=300)
    tiny_model(tokenizer, size=size, context_length=512).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model = load_scalar_model(str(folder), dtype="float32")
    model.score.weight.data.normal_(std=0.1)
    model.save_pretrained(folder)
    Manifest(
        label_estimator="td_gae", label_estimator_kwargs={}, beta=1.0, loss="mse", activation="identity",
        relabel="epoch", cold_start_epochs=0, value_reads="action", outcome="success",
        outcome_definition="none", environment="babyai", env_kwargs={}, end="declared", round_limit=None,
        prompt="none", action_format="action_only", template=ChatRenderer(tokenizer).template_hash,
        base="random", policy="none",
    ).save(folder)  # fmt: skip


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a PRM in a process of its own; yields the URL."""
    command = [sys.executable, "-m", "rlprm.cli", "serve-prm", "--prm", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        found = (re.search(r"on (http://\S+);", line) for line in process.stderr)
        yield next(match.group(1) for match in found if match)
    finally:
        process.terminate()
        rest = process.stderr.read()
        print(f"the server ended with status {process.wait()}: {rest.strip()}")


def trajectory(seed: int, template: str) -> dict[str, Any]:
    """Return a trajectory of random tokens: a prompt, 1 to 8 actions and observations between them."""
    draw = random.Random(seed)
    ids, steps = [draw.randrange(100) for _ in range(draw.randint(20, 60))], []
    for t in range(draw.randint(1, 8)):
        ids += [draw.randrange(100) for _ in range(draw.randint(5, 20) if t else 0)]
        start = len(ids)
        ids += [draw.randrange(100) for _ in range(draw.randint(2, 8))]
        steps.append({"start": start, "end": len(ids) - 1})
    return {"token_ids": ids, "steps": steps, "template": template}


class Connection:
    """One connection to a server. A pool of a library would cost more than the server does.

    Args:
        url: ``http://host:port``.
    """

    def __init__(self, url: str) -> None:
        self.host, _, port = url.removeprefix("http://").rstrip("/").rpartition(":")
        self.port = int(port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, content: Any) -> tuple[int, bytes]:
        """Send JSON; returns status and body of the answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self.host, self.port)
        reader, writer = self._streams
        body = json.dumps(content).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: {self.host}\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = re.search(r"content-length: (\d+)", answer)
        assert length is not None, answer
        return int(answer.split()[1]), await reader.readexactly(int(length.group(1)))


async def client(number: int, url: str, template: str, until: float, tally: Tally) -> None:
    """Ask until the time is over. Clients 2 k and 2 k + 1 send the same trajectories."""
    connection = Connection(url)
    for seed in itertools.count((number // 2) * 1_000_000):
        if time.perf_counter() > until:
            return
        content = {"trajectories": [trajectory(seed, template)]}
        started = time.perf_counter()
        try:
            status, answer = await connection.post("/score", content)
        except (OSError, EOFError) as error:
            tally.problems[type(error).__name__] += 1
            connection = Connection(url)
            continue
        tally.seconds.append(time.perf_counter() - started)
        if status != 200:
            tally.problems[f"HTTP {status}"] += 1
            continue
        values = json.loads(answer)["scores"][0]["values"]
        first = tally.scores.pop(seed, None)
        if first is None:
            tally.scores[seed] = values
            continue
        tally.compared += 1
        if max(abs(a - b) for a, b in zip(first, values, strict=True)) > _TOLERANCE:
            tally.problems["another score of the same trajectory"] += 1


async def load(url: str, clients: int, seconds: float) -> tuple[Tally, float]:
    """Run the clients; returns what they have seen, and the seconds that passed."""
    template = httpx.get(f"{url}/info", trust_env=False).json()["template"]
    tally, started = Tally(), time.perf_counter()
    until = started + seconds
    await asyncio.gather(*(client(i, url, template, until, tally) for i in range(clients)))
    return tally, time.perf_counter() - started


def main() -> int:
    """Print the figures; returns 1 if something went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--size", default="xs", help="of the tiny PRM")
    parser.add_argument("--url", help="of a server that runs already")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url = options.url
        if url is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            save_tiny_prm(folder, options.size)
            url = stack.enter_context(served(folder))
        tally, seconds = asyncio.run(load(url, options.clients, options.seconds))
        lines = httpx.get(f"{url}/metrics", trust_env=False).text.splitlines()
    ordered = sorted(tally.seconds) or [float("nan")]
    p50, p95 = (ordered[min(int(share * len(ordered)), len(ordered) - 1)] for share in (0.5, 0.95))
    print(f"{options.clients} clients, {seconds:.1f} s, {len(tally.seconds)} answers")
    print(f"errors: {dict(tally.problems) or 'none'}; scores compared: {tally.compared}")
    print(f"latency: p50 {1000 * p50:.0f} ms, p95 {1000 * p95:.0f} ms, largest {1000 * ordered[-1]:.0f} ms")
    print(f"{len(tally.seconds) / seconds:.0f} trajectories per second")
    print("\n".join(line for line in lines if line.startswith("rlprm_prm_") and "_bucket" not in line))
    return 1 if tally.problems or not tally.seconds else 0


if __name__ == "__main__":
    sys.exit(main())
