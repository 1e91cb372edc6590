"""Search by words: BM25 over products, in memory and on disk."""
