"""Search: BM25 over the documents of products, through bm25s.

Upstream searches with Pyserini, whose BM25 is Lucene's with k1 = 0.9 and b = 0.4.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Mapping

import bm25s
import numpy as np
from numpy.typing import NDArray

from rlprm.envs.webshop.search.analyzer import terms

# It sets its own level to DEBUG, which would show in every log of the user's.
logging.getLogger("bm25s").setLevel(logging.WARNING)

__all__ = ["K1", "MOST_RESULTS", "B", "SearchIndex", "TermId", "new_bm25"]

K1 = 0.9
B = 0.4
MOST_RESULTS = 50
"""Products a search finds at most, upstream's number."""

_MOST_TERMS = 128  # of a query; the others are left out
_QUERIES_KEPT = 4096


def new_bm25() -> bm25s.BM25:
    """Return an empty BM25 with upstream's settings."""
    return bm25s.BM25(k1=K1, b=B, method="lucene")


TermId = Callable[[str], int | None]
"""Returns the number of a term, None for one that no document has."""


class SearchIndex:
    """Finds documents by words."""

    def __init__(self, bm25: bm25s.BM25, term_id: TermId) -> None:
        """Take over an index.

        Args:
            bm25: With its scores.
            term_id: Its number of a term, None for one that no document has.
        """
        self._bm25 = bm25
        self._term_id = term_id
        self._found = functools.lru_cache(maxsize=_QUERIES_KEPT)(self._search)

    @classmethod
    def of(cls, documents: Iterable[str]) -> SearchIndex:
        """Build an index in memory, with exact lengths of documents (see ``disk_index.stored_lengths``)."""
        bm25 = new_bm25()
        bm25.index([terms(text) for text in documents], show_progress=False)
        vocabulary: Mapping[str, int] = bm25.vocab_dict
        return cls(bm25, vocabulary.get)

    def search(self, query: str) -> tuple[int, ...]:
        """Return the places of the best documents, best first; none that shares no term with the query.

        Among equals the first document comes first, as in Lucene.
        """
        return self._found(tuple(terms(query, _MOST_TERMS)))

    def _search(self, query: tuple[str, ...]) -> tuple[int, ...]:
        ids = [number for term in query if (number := self._term_id(term)) is not None]
        if not ids:
            return ()
        return best(self._bm25.get_scores_from_ids(ids), MOST_RESULTS)


def best(scores: NDArray[np.float32], count: int) -> tuple[int, ...]:
    """Return the places of the highest positive scores, highest first, of equal ones the first first."""
    least = np.partition(scores, -count)[-count] if len(scores) > count else 0.0
    places = np.flatnonzero(scores >= least) if least > 0 else np.flatnonzero(scores > 0)
    order = np.lexsort((places, -scores[places]))[:count]
    return tuple(places[order].tolist())
