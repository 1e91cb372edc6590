"""WebShop's official data at full size: time and memory of building the index, opening it, and searching.

    python scripts/bench/webshop.py                     # as many products as WebShop has: 1,180,000
    python scripts/bench/webshop.py --products 20000 --json figures.json

The files are written in the official format, to a temporary folder that is removed in the end. What they say
is invented: words by Zipf's law, each product with a model number of its own (which the vocabulary has to
hold), 16 combinations of options, and an instruction for as many as in the published attributes. Building and
searching are a process each; its peak memory holds the pages of the files that it maps, too.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before numpy

import argparse
import itertools
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rlprm.envs.webshop.official.store import open_store

WORDS = 40_000
SENTENCES = 20_000
SENTENCE = 10  # words
WITH_INSTRUCTION = 0.415
COLORS = ("red", "navy", "forest green", "black")
SIZES = ("small", "medium", "large", "x-large")


def sentences(draw: random.Random) -> list[str]:
    """Sentences of invented words, the n-th of which is used 1/n as often as the first."""
    syllables = [consonant + vowel for consonant in "bdfghklmnprstvz" for vowel in "aeiou"]
    words: dict[str, None] = {}
    while len(words) < WORDS:
        words["".join(draw.choices(syllables, k=draw.randint(1, 4)))] = None
    weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(WORDS)))
    drawn = draw.choices(list(words), cum_weights=weights, k=SENTENCES * SENTENCE)
    return [" ".join(drawn[at : at + SENTENCE]) for at in range(0, len(drawn), SENTENCE)]


def products(count: int, draw: random.Random) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield elements of the product file, and what the attributes file says about them."""
    known = sentences(draw)
    options = {
        name: [{"is_selected": False, "value": value, "image": None} for value in values]
        for name, values in (("Color", COLORS), ("Size", SIZES))
    }
    for number in range(count):
        title, kind, *bullets = draw.choices(known, k=7)
        attributes = title.split()[:3]
        yield (
            {
                "asin": f"B{number:09}",
                "name": f"{title} {kind} M{number:07}",
                "category": "fashion",
                "query": kind,
                "product_category": " › ".join(kind.split()[:3]),
                "full_description": ". ".join(draw.choices(known, k=8)),
                "small_description": bullets,
                "pricing": f"${5 + number % 200}.99",
                "customization_options": options,
                "images": [f"https://example.org/images/{number:09}-{view}.jpg" for view in range(6)],
                "brand": title.split()[0],
                "total_reviews": number % 100,
            },
            {"attributes": attributes}
            | (
                {"instruction": f"Find me {', '.join(attributes)}", "instruction_attributes": attributes}
                if draw.random() < WITH_INSTRUCTION
                else {}
            ),
        )


def write_files(folder: Path, count: int, draw: random.Random) -> None:
    """Write a product file and its attributes, a product at a time."""
    with (
        (folder / "items_shuffle.json").open("w", encoding="utf-8") as shop,
        (folder / "items_ins_v2.json").open("w", encoding="utf-8") as about,
    ):
        for number, (product, entry) in enumerate(products(count, draw)):
            shop.write(("," if number else "[") + json.dumps(product))
            about.write(("," if number else "{") + f'"{product["asin"]}": {json.dumps(entry)}')
        shop.write("]")
        about.write("}")


def build(folder: str) -> dict[str, float]:
    """Build the index and open it."""
    spent = _timer()
    store = open_store(folder)
    size = sum(path.stat().st_size for path in store.folder.iterdir())
    return spent() | {
        "documents": store.documents,
        "goals": store.goals("synthetic"),
        "gigabytes": size / 1e9,
    }


def search(folder: str, queries: Sequence[str]) -> dict[str, float]:
    """Open an index that is there, and search."""
    spent = _timer()
    index = open_store(folder).shop.index
    opened = spent()["seconds"]
    index.search(queries[0])
    spent = _timer()
    for query in queries[1:]:
        index.search(query)
    figures = spent()
    each = 1e3 / len(queries[1:])
    return figures | {
        "seconds_to_open": opened,
        "milliseconds": each * figures["seconds"],
        "cpu_milliseconds": each * figures["cpu_seconds"],
    }


def _timer() -> Callable[[], dict[str, float]]:
    """Return a function that says what was spent since."""
    clock, cpu = time.perf_counter(), time.process_time()

    def spent() -> dict[str, float]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return {
            "seconds": time.perf_counter() - clock,
            "cpu_seconds": time.process_time() - cpu,
            "peak_megabytes": peak / 1e6,
        }

    return spent


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--products", type=int, default=1_180_000, help="how many (1180000)")
    parser.add_argument("--searches", type=int, default=200, help="how many, none twice (200)")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--json", type=Path, help="file for the figures")
    chosen = parser.parse_args(arguments)
    draw = random.Random(0)
    figures: dict[str, Any] = {"products": chosen.products}
    with (
        tempfile.TemporaryDirectory(dir=chosen.folder) as folder,
        multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool,
    ):
        write_files(Path(folder), chosen.products, draw)
        figures["file_gigabytes"] = (Path(folder) / "items_shuffle.json").stat().st_size / 1e9
        figures["build"] = pool.apply(build, (folder,))
        known = sentences(random.Random(0))
        queries = [" ".join(draw.sample(draw.choice(known).split(), 5)) for _ in range(chosen.searches)]
        figures["search"] = pool.apply(search, (folder, queries))
    print(json.dumps(figures, indent=2))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
