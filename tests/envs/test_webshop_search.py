"""WebShop: words, BM25 and the index on disk."""

from __future__ import annotations

import itertools
import math
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlprm.envs.webshop.search.analyzer import STOP_WORDS, terms
from rlprm.envs.webshop.search.disk_index import IndexBuilder, open_index, stored_lengths
from rlprm.envs.webshop.search.index import MOST_RESULTS, SearchIndex, best, new_bm25
from rlprm.envs.webshop.search.porter_stemmer import stem
from rlprm.envs.webshop.shop.generated_products import Draw, generated_products
from rlprm.envs.webshop.shop.product import Option, documented
from tests.toys.webshop import product

# ------------------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("word", "expected"),
    [  # one or more for each step of the algorithm, from Porter's paper
        *[("caresses", "caress"), ("ponies", "poni"), ("caress", "caress"), ("cats", "cat")],
        *[("feed", "feed"), ("agreed", "agre"), ("plastered", "plaster"), ("bled", "bled"), ("sing", "sing")],
        *[("motoring", "motor"), ("conflated", "conflat"), ("troubled", "troubl"), ("sized", "size")],
        *[
            ("hopping", "hop"),
            ("falling", "fall"),
            ("hissing", "hiss"),
            ("fizzed", "fizz"),
            ("failing", "fail"),
        ],
        *[("filing", "file"), ("happy", "happi"), ("sky", "sky"), ("toys", "toi")],
        *[("relational", "relat"), ("conditional", "condit"), ("rational", "ration"), ("digitizer", "digit")],
        *[("operator", "oper"), ("feudalism", "feudal"), ("decisiveness", "decis"), ("hopefulness", "hope")],
        *[
            ("formaliti", "formal"),
            ("sensibiliti", "sensibl"),
            ("triplicate", "triplic"),
            ("formative", "form"),
        ],
        *[("formalize", "formal"), ("electrical", "electr"), ("hopeful", "hope"), ("goodness", "good")],
        *[("revival", "reviv"), ("allowance", "allow"), ("airliner", "airlin"), ("adjustable", "adjust")],
        *[("replacement", "replac"), ("adoption", "adopt"), ("communism", "commun"), ("effective", "effect")],
        *[
            ("probate", "probat"),
            ("rate", "rate"),
            ("cease", "ceas"),
            ("controll", "control"),
            ("roll", "roll"),
        ],
        *[("technology", "technolog"), ("incredibly", "incred"), ("is", "is"), ("a", "a"), ("", "")],
    ],
)
def test_porters_stemmer(word: str, expected: str) -> None:
    assert stem(word) == expected


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz", max_size=15))
def test_a_stem_is_no_longer_than_its_word(word: str) -> None:
    assert len(stem(word)) <= len(word)
    assert stem(word)[:1] == word[:1]


@pytest.mark.parametrize("ending", ["e", "eed", "ational", "y", "ing", "ll"])
def test_stemming_is_linear(ending: str) -> None:
    for letters in ("a", "y", "ab", "b"):
        started = time.process_time()
        stem(letters * 100_000 + ending)
        assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Women's Hiking-Boots", ["women", "hike", "boot"]),
        ("l'eau d'issey 6.76 fl oz, 1,000 pcs.", ["l'eau", "d'issei", "6.76", "fl", "oz", "1,000", "pc"]),
        ("the boots that are not for rain", ["boot", "rain"]),
        ("price < 40.00 | $19.99", ["price", "40.00", "19.99"]),
        ("日本 café", ["日本", "café"]),
        (" \n", []),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


@settings(max_examples=200)
@given(st.text(max_size=80))
def test_terms_of_anything(text: str) -> None:
    found = terms(text)
    assert found == terms(text.lower())
    assert not STOP_WORDS & set(found) - {stem(word) for word in text.lower().split()}
    assert all(term for term in found)


@pytest.mark.parametrize(
    ("word", "pieces"),
    [
        ("b" * 255, ["b" * 255]),
        ("b" * 256, ["b" * 255, "b"]),
        ("b" * 600, ["b" * 255, "b" * 255, "b" * 90]),
        ("b" * 254 + "'" + "b" * 300, ["b" * 254, "b" * 254, "b" * 46]),
        ("1" * 255 + ".5", ["1" * 255, "5"]),
    ],
)
def test_long_words_are_cut_as_by_lucenes_tokenizer(word: str, pieces: list[str]) -> None:
    assert terms(f"red {word} shoes") == ["red", *pieces, "shoe"]


@given(
    st.lists(st.sampled_from(["red", "The", "of", "b" * 300, "it's", "1,000"]), max_size=12),
    st.integers(0, 9),
)
def test_so_many_terms_are_the_first_of_all(words: list[str], most: int) -> None:
    assert terms(" ".join(words), most) == terms(" ".join(words))[:most]


def test_of_a_long_query_only_what_counts_is_stemmed(monkeypatch: pytest.MonkeyPatch) -> None:
    index = SearchIndex.of(["boots", "shoes"])
    stemmed: list[str] = []
    monkeypatch.setattr("rlprm.envs.webshop.search.analyzer.stem", lambda word: stemmed.append(word) or word)
    assert index.search(" the ".join(["boots", *(f"w{n}" for n in range(1000))])) == (0,)
    assert len(stemmed) <= 128


# ------------------------------------------------------------------------------ ranking

DOCUMENTS = ["red shoe", "red red hat", "blue hat"]


def test_scores_worked_out_by_hand(tmp_path: Path) -> None:
    """idf · tf / (tf + 0.9 · (0.6 + 0.4 · length / mean length)); lengths 2, 3 and 2."""
    index = built(tmp_path, DOCUMENTS)
    mean = 7 / 3
    shoe = math.log(1 + 2.5 / 1.5) * 1 / (1 + 0.9 * (0.6 + 0.4 * 2 / mean))
    assert shoe == pytest.approx(0.530588, abs=1e-6)
    red = [math.log(1 + 1.5 / 2.5) * n / (n + 0.9 * (0.6 + 0.4 * k / mean)) for n, k in ((1, 2), (2, 3))]
    indptr, data = np.load(tmp_path / "indptr.npy"), np.load(tmp_path / "data.npy")
    first, second, third = (data[a:b].tolist() for a, b in itertools.pairwise(indptr[:4]))
    assert first == pytest.approx(red)  # terms in the order in which they were met: red, shoe, hat, blue
    assert second == pytest.approx([shoe])
    assert len(third) == 2
    assert index.search("red") == (1, 0)
    assert index.search("red shoe") == (0, 1)
    assert index.search("blue shoes") == (0, 2)  # alike, so the first comes first
    assert index.search("zebra the") == ()


def built(folder: Path, documents: list[str]) -> SearchIndex:
    """An index on disk."""
    builder = IndexBuilder(folder)
    for text in documents:
        builder.add(terms(text))
    vocabulary = builder.vocabulary
    builder.finish()
    assert not (folder / "postings.tmp").exists()
    return open_index(folder, vocabulary.get, len(documents))


def test_lengths_are_stored_as_by_lucene() -> None:
    """40 is 24 + 16, and 16 and 17 differ in the fifth bit; 1,000 is 24 + 976, which has ten bits."""
    lengths = {0: 0, 1: 1, 23: 23, 24: 24, 39: 39, 40: 40, 41: 40, 42: 42, 55: 54, 56: 56, 59: 56, 60: 60,
               87: 84, 88: 88, 95: 88, 96: 96, 100: 96, 1_000: 984, 2_147_483_647: 2_013_265_944}  # fmt: skip
    assert dict(zip(lengths, stored_lengths(np.array(list(lengths))).tolist(), strict=True)) == lengths


@given(st.lists(st.integers(0, 10**6), min_size=1))
def test_a_stored_length_is_stored_as_itself_and_at_most_an_eighth_too_short(lengths: list[int]) -> None:
    exact = np.array(lengths)
    stored = stored_lengths(exact)
    assert np.array_equal(stored_lengths(stored), stored)
    assert (stored <= exact).all()
    assert (8 * (exact - stored) <= np.maximum(exact - 24, 0)).all()


def test_long_documents_are_ranked_by_their_stored_lengths(tmp_path: Path) -> None:
    """Of 41 and 40 words the second document would win; both are stored as 40, and the first comes first."""
    long, short = (" ".join(["shoe", *(f"word{n}" for n in range(count))]) for count in (40, 39))
    index = built(tmp_path, [long, short, "hat"])
    assert index.search("shoe") == (0, 1)
    assert SearchIndex.of([long, short, "hat"]).search("shoe") == (1, 0)
    mean = (41 + 40 + 1) / 3
    score = math.log(1 + 1.5 / 2.5) / (1 + 0.9 * (0.6 + 0.4 * 40 / mean))
    data = np.load(tmp_path / "data.npy")
    assert data[:2].tolist() == pytest.approx([score, score])


def test_a_word_asked_for_twice_counts_twice() -> None:
    index = SearchIndex.of(["red shoe", "blue hat", "blue cap"])
    assert index.search("red blue hat")[0] == 1
    assert index.search("red red blue hat")[0] == 0


def test_search_ignores_case_endings_and_function_words() -> None:
    index = SearchIndex.of(DOCUMENTS)
    assert index.search("the SHOES") == index.search("shoe") == (0,)


@pytest.mark.parametrize("block", [1, 7, 1 << 21])
def test_the_index_on_disk_is_the_one_of_bm25s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr("rlprm.envs.webshop.search.disk_index._BLOCK", block)
    documents = [documented(p) for p in generated_products()[:60]]
    on_disk, in_memory = built(tmp_path, documents), SearchIndex.of(documents)
    bm25 = new_bm25()
    bm25.index([terms(text) for text in documents], show_progress=False)
    draw = Draw("queries")
    for _ in range(50):
        query = terms(" ".join(draw.some(" ".join(documents).split(), 5)))
        ids = [number for term in query if (number := on_disk._term_id(term)) is not None]
        if query:
            expected = bm25.get_scores(query)
            assert on_disk._bm25.get_scores_from_ids(ids) == pytest.approx(expected, abs=1e-5)
            assert on_disk.search(" ".join(query)) == in_memory.search(" ".join(query))


def test_an_index_without_documents_or_without_words(tmp_path: Path) -> None:
    for name, documents in (("none", []), ("empty", ["", "the"])):
        (tmp_path / name).mkdir()
        assert built(tmp_path / name, documents).search("boots") == ()


@settings(max_examples=100)
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=30), st.integers(1, 10))
def test_the_best_are_the_first_of_a_stable_sort(scores: list[float], count: int) -> None:
    ranked = sorted(
        (place for place, score in enumerate(scores) if score > 0), key=lambda place: -scores[place]
    )
    assert best(np.array(scores, dtype=np.float32), count) == tuple(ranked[:count])


def test_no_more_than_fifty_are_found() -> None:
    index = SearchIndex.of(["boots"] * 80)
    assert index.search("boots") == tuple(range(MOST_RESULTS)) == tuple(range(50))


def test_products_are_found_by_title_description_first_bullet_and_options() -> None:
    one = product(
        title="Alpha",
        description="Beta",
        bullets=("Gamma", "Delta"),
        options=(Option("color", ("red", "blue")), Option("size", ("8",))),
    )
    assert documented(one) == "alpha beta gamma color: red, blue, and size: 8"
    assert documented(product(title="Alpha")).split() == ["alpha"]


def test_a_search_over_a_thousand_products_takes_less_than_a_millisecond() -> None:
    documents = [documented(p) for p in (*generated_products(), *generated_products())][:1000]
    index, draw = SearchIndex.of(documents), Draw("speed")
    queries = [" ".join(draw.some(draw.one(documents).split(), 7)) for _ in range(300)]
    start = time.process_time()
    for query in queries:
        index.search(query)
    assert (time.process_time() - start) / len(queries) < 1e-3
