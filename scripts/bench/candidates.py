"""Scores of candidates behind a shared prefix, and of the same ones in one padded batch without a cache.

    python scripts/bench/candidates.py --model tiny
    python scripts/bench/candidates.py --config textcraft/collect_tiny.yaml --root runs/first

16 candidates of 8 tokens stand behind a prefix of 350 tokens. A search scores them: the prefix is read once,
and the candidates see it under a tree mask. Both ways run in turn in one process; the times are medians of
processor seconds. Other options are settings of a collection (``rlprm collect``), whose policy gives the body
of the scorer. Values of both are compared, rounded to three places.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rollouts import tiny_policy
from versions import candidates, padded


def measure(argv: Sequence[str], prefixes: int, times: int) -> dict[str, float]:
    """Return medians in milliseconds, the median of the ratios, and how many values agree."""
    ways = {"shared": candidates(argv, prefixes), "padded": padded(argv, prefixes)}
    first, second = (run() for run in ways.values())  # a warm-up
    pairs = [(x, y) for a, b in zip(first, second, strict=True) for x, y in zip(a, b, strict=True)]
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(times):
        for name, run in ways.items():
            started = time.process_time()
            run()
            seconds[name].append(time.process_time() - started)
    ratios = [p / s for s, p in zip(seconds["shared"], seconds["padded"], strict=True)]
    return {
        **{f"{name}_ms": 1000 * statistics.median(found) for name, found in seconds.items()},
        "ratio": statistics.median(ratios),
        "values": len(pairs),
        "equal": sum(abs(x - y) < 0.0015 for x, y in pairs),  # one unit of the last place
    }


def main() -> None:
    """Print the figures, and as the last line all of them as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--prefixes", type=int, default=1, help="each with 16 candidates")
    parser.add_argument("--times", type=int, default=15, help="runs of each way, in turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--config", default="", help="recipe of a collection")
    parser.add_argument("--model", default="", help="folder of a policy; tiny: embedded random weights")
    parser.add_argument("--size", default="s", help="of --model tiny: xs, s, m, l")
    options, argv = parser.parse_known_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        if options.model == "tiny":
            options.model = tiny_policy(Path(folder) / "policy", size=options.size)
            argv += ["--environment", "drawn", "--output_dir", "-"]
        argv += ["--model", options.model] if options.model else []
        argv = [*(["--config", options.config] if options.config else []), *argv]
        figures = measure(argv, options.prefixes, options.times)
    print(
        f"behind a shared prefix {figures['shared_ms']:.1f} ms, padded {figures['padded_ms']:.1f} ms: "
        f"{figures['ratio']:.2f} times; {figures['equal']:.0f} of {figures['values']:.0f} values are equal"
    )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
