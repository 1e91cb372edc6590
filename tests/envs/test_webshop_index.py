"""What WebShop keeps of its own data on disk: built once, for these data and settings, in bounded memory."""

from __future__ import annotations

import multiprocessing
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from rlprm.envs.webshop.official import store
from rlprm.envs.webshop.official.files import find_files, fingerprint
from rlprm.envs.webshop.official.store import open_store
from rlprm.errors import ConfigError, DataError
from tests.toys.webshop import raw_product, small_data, write_official


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where stores were built, in order."""
    folders: list[Path] = []
    build = store.build

    def counted(files: Any, products: int | None, folder: Path) -> None:
        folders.append(folder)
        build(files, products, folder)

    monkeypatch.setattr(store, "build", counted)
    store._opened.cache_clear()
    return folders


def test_an_index_is_built_once(tmp_path: Path, built: list[Path]) -> None:
    data = str(small_data(tmp_path))
    first = open_store(data)
    store._opened.cache_clear()
    again = open_store(data)
    assert built == [first.folder]
    assert first.folder.parent == tmp_path / ".rlprm-webshop"
    assert again.shop.index.search("number7") == first.shop.index.search("number7") != ()
    assert sorted(path.name for path in first.folder.iterdir()) == [
        *(
            "data.npy",
            "human.npy",
            "human_agentgym.npy",
            "indices.npy",
            "indptr.npy",
            "meta.json",
            "products.sqlite",
            "synthetic.npy",
        )
    ]


def test_other_data_and_settings_have_another_index(tmp_path: Path, built: list[Path]) -> None:
    data = small_data(tmp_path)
    first = open_store(str(data))
    open_store(str(data), products=5)
    small_data(tmp_path, 31)
    assert open_store(str(data)).documents == 31
    assert len(set(built)) == 3
    os.utime(data / "items_shuffle_1000.json", ns=(1, 1))
    store._opened.cache_clear()
    assert open_store(str(data)).mark == fingerprint_mark(data)
    assert len(set(built)) == 4
    assert first.documents == 30


def fingerprint_mark(data: Path) -> str:
    """The mark of data that only changed their time is the same."""
    assert fingerprint(find_files(str(data))) == fingerprint(find_files(str(data)))
    return open_store(str(data)).mark


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, built: list[Path]) -> None:
    data = small_data(tmp_path)
    whole = (data / "items_shuffle_1000.json").read_text()
    (data / "items_shuffle_1000.json").write_text(whole[:-100])
    with pytest.raises(DataError, match="items_shuffle_1000"):
        open_store(str(data))
    assert list((tmp_path / ".rlprm-webshop").iterdir()) == []
    (data / "items_shuffle_1000.json").write_text(whole)
    assert open_store(str(data)).documents == 30
    assert len(list((tmp_path / ".rlprm-webshop").iterdir())) == 1


def test_of_two_builds_at_once_the_first_is_kept(tmp_path: Path, built: list[Path]) -> None:
    first = open_store(str(small_data(tmp_path)))
    before = (first.folder / "meta.json").stat().st_ino
    files = find_files(str(tmp_path))
    store.build(files, None, first.folder)
    assert (first.folder / "meta.json").stat().st_ino == before
    assert len(list(first.folder.parent.iterdir())) == 1


def test_a_cache_folder_can_be_given(tmp_path: Path) -> None:
    data = small_data(tmp_path / "data")
    assert open_store(str(data), cache=str(tmp_path / "cache")).folder.parent == tmp_path / "cache"
    assert not (data / ".rlprm-webshop").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        open_store(str(data), cache=str(tmp_path / "file" / "cache"))


def test_a_disk_that_is_full_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rlprm.envs.webshop.official.build.IndexBuilder.finish", full)
    with pytest.raises(ConfigError, match=r"webshop cache: .* cannot be written .*No space left on device"):
        open_store(str(small_data(tmp_path)))
    assert list((tmp_path / ".rlprm-webshop").iterdir()) == []


def test_data_in_a_read_only_place_use_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = small_data(tmp_path / "data")
    monkeypatch.setattr(store.os, "access", lambda *_: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert open_store(str(data)).folder.parent == tmp_path / "home" / "rlprm" / "webshop"


def test_a_forked_process_reads_for_itself(tmp_path: Path) -> None:
    opened = open_store(str(small_data(tmp_path)))
    assert opened.shop.product(0).asin == "B000000000"
    receiving, sending = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(
        target=lambda: sending.send((opened.shop.product(3).asin, opened.shop.index.search("number4")))
    )
    child.start()
    asin, found = receiving.recv()
    child.join()
    assert (asin, found) == ("B000000003", (4,))
    assert opened.shop.product(5).asin == "B000000005"


def test_building_does_not_hold_the_file_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    products = [raw_product(f"B{n:09}", full_description="rain" + "." * 28_000) for n in range(300)]
    data = write_official(tmp_path, products, {})
    size = (data / "items_shuffle_1000.json").stat().st_size
    assert size > 8_000_000
    del products
    tracemalloc.start()
    try:
        assert open_store(str(data)).documents == 300
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.75 * size
