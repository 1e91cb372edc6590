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

from rlprm.envs.webshop.search.index import K1, B, SearchIndex, TermId, new_bm25

__all__ = ["IndexBuilder", "open_index", "stored_lengths"]

_BLOCK = 1 << 21  # postings that are sorted at once
_EXACT_LENGTHS = 24
_SIGNIFICANT_BITS = 4


class _Vocabulary(dict[str, int]):
    """Numbers of the terms, in the order in which they are met."""

    def __missing__(self, term: str) -> int:
        number = self[term] = len(self)
        return number


class IndexBuilder:
    """Takes documents one by one, and writes the index at the end.

    In memory are the vocabulary, and a number for each term and each document.
    """

    def __init__(self, folder: Path) -> None:
        """Start an index in a folder."""
        self._folder = folder
        self._postings = (folder / "postings.tmp").open("wb")
        self._terms, self._counts, self._different = array("i"), array("i"), array("i")
        self.vocabulary: dict[str, int] = _Vocabulary()
        """Numbers of the terms."""
        self._frequency = np.zeros(0, dtype=np.int64)
        """In how many documents each term is."""
        self._lengths = array("i")

    def add(self, terms: Iterable[str]) -> None:
        """Add the next document."""
        counts = Counter(terms)
        self._lengths.append(counts.total())
        self._different.append(len(counts))
        self._terms.extend(map(self.vocabulary.__getitem__, counts))
        self._counts.extend(counts.values())
        if len(self._terms) > _BLOCK:
            self._flush()

    def finish(self) -> None:
        """Write the index; the builder cannot be used afterwards."""
        self._flush()
        self._postings.close()
        frequency = self._frequency
        indptr = np.concatenate(([0], np.cumsum(frequency)))
        np.save(self._folder / "indptr.npy", indptr)
        total = int(indptr[-1])
        files = self._folder / "data.npy", self._folder / "indices.npy"
        for file, dtype in zip(files, (np.float32, np.int32), strict=True):
            open_memmap(file, mode="w+", dtype=dtype, shape=(total,))
        lengths = np.array(self._lengths, dtype=np.int64)
        documents = len(lengths)
        mean = lengths.mean() if lengths.any() else 1.0
        # Lucene's BM25 as bm25s computes it: idf · tf / (tf + k1 · (1 - b + b · length / mean length)).
        # Lucene rounds the length, but not the mean.
        idf = np.log1p((documents - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)
        norm = K1 * (1 - B + B * stored_lengths(lengths) / mean)
        place = indptr[:-1].copy()
        path = self._folder / "postings.tmp"
        with path.open("rb") as postings:
            for start in range(0, total, _BLOCK):
                block = np.fromfile(postings, dtype=np.int32, count=3 * min(_BLOCK, total - start))
                term, document, count = block.reshape(-1, 3).T
                order = np.argsort(term, kind="stable")
                term, document, count = term[order], document[order], count[order]
                at = _next_places(place, term)
                # Opened for each block, so that no pages but its own are in memory.
                data, indices = (np.load(file, mmap_mode="r+") for file in files)
                data[at] = idf[term] * (count / (norm[document] + count))
                indices[at] = document
        path.unlink()

    def _flush(self) -> None:
        """Write the postings down: numbers of the term and the document, and how often it has it."""
        term = np.frombuffer(self._terms, dtype=np.int32)
        first = len(self._lengths) - len(self._different)
        document = np.repeat(np.arange(first, len(self._lengths), dtype=np.int32), self._different)
        np.stack((term, document, np.frombuffer(self._counts, dtype=np.int32)), axis=1).tofile(self._postings)
        frequency = np.bincount(term, minlength=len(self.vocabulary))
        frequency[: len(self._frequency)] += self._frequency
        self._frequency = frequency
        self._terms, self._counts, self._different = array("i"), array("i"), array("i")


def stored_lengths(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the lengths of documents as Lucene stores them, in a byte each, rounded down.

    Lengths below 40 are exact. From 24 on, the rest has four significant bits: 40, 42, ... 54, 56, 60, ...
    (SmallFloat.intToByte4 of Lucene 7 and later).

    Args:
        lengths: Numbers of terms, shape (documents,).
    """
    rest = np.maximum(lengths - _EXACT_LENGTHS, 0)
    _, bits = np.frexp(rest.astype(np.float64))  # the number of bits of each
    dropped = np.maximum(bits - _SIGNIFICANT_BITS, 0).astype(np.int64)
    stored: NDArray[np.int64] = np.minimum(lengths, _EXACT_LENGTHS) + (rest >> dropped << dropped)
    return stored


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
