"""An index on disk: built in bounded memory, read through memory maps.

The scores are laid out as bm25s keeps them (a column for each term), which then does the searching. bm25s
itself would hold every word of every document in memory while it builds an index.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from rlprm.envs.webshop.index import K1, B, SearchIndex, TermId, new_bm25

__all__ = ["IndexBuilder", "open_index"]

_BLOCK = 1 << 21  # postings that are sorted at once


class IndexBuilder:
    """Takes documents one by one, and writes the index at the end.

    In memory are the vocabulary and two numbers for each document.
    """

    def __init__(self, folder: Path) -> None:
        """Start an index in a folder."""
        self._folder = folder
        self._postings = (folder / "postings.tmp").open("wb")
        self._buffer = array("i")
        self.vocabulary: dict[str, int] = {}
        """Numbers of the terms."""
        self._with_term = array("q")
        """In how many documents each term is."""
        self._lengths = array("i")

    def add(self, terms: Iterable[str]) -> None:
        """Add the next document."""
        counts = Counter(terms)
        document = len(self._lengths)
        self._lengths.append(sum(counts.values()))
        for term, count in counts.items():
            number = self.vocabulary.setdefault(term, len(self.vocabulary))
            if number == len(self._with_term):
                self._with_term.append(0)
            self._with_term[number] += 1
            self._buffer.extend((number, document, count))
        if len(self._buffer) > 3 * _BLOCK:
            self._flush()

    def finish(self) -> None:
        """Write the index; the builder cannot be used afterwards."""
        self._flush()
        self._postings.close()
        frequency = np.array(self._with_term, dtype=np.int64)
        indptr = np.concatenate(([0], np.cumsum(frequency)))
        np.save(self._folder / "indptr.npy", indptr)
        total = int(indptr[-1])
        data = open_memmap(self._folder / "data.npy", mode="w+", dtype=np.float32, shape=(total,))
        indices = open_memmap(self._folder / "indices.npy", mode="w+", dtype=np.int32, shape=(total,))
        lengths = np.array(self._lengths, dtype=np.int64)
        documents = len(lengths)
        mean = lengths.mean() if lengths.any() else 1.0
        # Lucene's BM25 as bm25s computes it: idf · tf / (tf + k1 · (1 - b + b · length / mean length)).
        idf = np.log1p((documents - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)
        norm = K1 * (1 - B + B * lengths / mean)
        place = indptr[:-1].copy()
        path = self._folder / "postings.tmp"
        with path.open("rb") as file:
            for start in range(0, total, _BLOCK):
                block = np.fromfile(file, dtype=np.int32, count=3 * min(_BLOCK, total - start))
                term, document, count = block.reshape(-1, 3).T
                order = np.argsort(term, kind="stable")
                term, document, count = term[order], document[order], count[order]
                at = _next_places(place, term)
                data[at] = idf[term] * (count / (norm[document] + count))
                indices[at] = document
        data.flush()
        indices.flush()
        path.unlink()

    def _flush(self) -> None:
        self._buffer.tofile(self._postings)
        self._buffer = array("i")


def _next_places(place: NDArray[np.int64], term: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return where the postings of a block go, and move the places of their terms on.

    Args:
        place: Where the next posting of each term goes; changed.
        term: Terms of the block, sorted.
    """
    present, first, count = np.unique(term, return_index=True, return_counts=True)
    within = np.arange(len(term)) - np.repeat(first, count)
    at: NDArray[np.int64] = place[term] + within
    place[present] += count
    return at


def open_index(folder: Path, term_id: TermId, documents: int) -> SearchIndex:
    """Open a finished index.

    Args:
        folder: Where it is.
        term_id: Returns the number of a term, None for one that no document has.
        documents: How many documents it has.
    """
    bm25 = new_bm25()
    bm25.scores = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("data", "indices", "indptr")
    } | {"num_docs": documents}
    bm25.nonoccurrence_array = None
    return SearchIndex(bm25, term_id)
