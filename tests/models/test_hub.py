"""A hub id stands for the folder of one commit; what the hub cannot give is one line."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from huggingface_hub import errors as hub_errors

from rlprm.errors import ArtifactError, ConfigError
from rlprm.models.hub import download, weight_files
from rlprm.models.hub.identity import model_files
from rlprm.models.hub.options import LoadingOptions, loading_options
from rlprm.models.loading import context_length_of, load_causal_lm, load_config, load_tokenizer, revision_of
from rlprm.policies.config import PolicyConfig
from rlprm.runtime.hub_names import is_hub_id, with_revision
from tests import hub_layout

OTHER = "f" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    download._snapshot.cache_clear()
    return hub_layout.use_cache(tmp_path / "hub", monkeypatch)


def test_a_hub_id_loads_as_the_folder_does(cache: Path, tiny_folder: Path) -> None:
    hub_layout.put(cache, "org/tiny", tiny_folder)
    for name in ("org/tiny", "org/tiny@main", f"org/tiny@{hub_layout.COMMIT}"):
        assert revision_of(name) == hub_layout.COMMIT[:12]
        assert load_tokenizer(name).get_vocab() == load_tokenizer(str(tiny_folder)).get_vocab()
        assert context_length_of(name) == context_length_of(str(tiny_folder))
        own = dict(load_causal_lm(name).named_parameters())
        for key, weight in load_causal_lm(str(tiny_folder)).named_parameters():
            assert weight.equal(own[key])
    assert model_files(policy="org/tiny") == {}, "the commit stands for all files"


def test_a_branch_is_read_when_it_is_named(cache: Path, tiny_folder: Path, foreign_folder: Path) -> None:
    hub_layout.put(cache, "org/tiny", tiny_folder)
    other = cache / "models--org--tiny" / "snapshots" / OTHER
    shutil.copytree(foreign_folder, other)
    (cache / "models--org--tiny" / "refs" / "v2").write_text(OTHER)
    assert revision_of("org/tiny@v2") == OTHER[:12]
    assert len(load_tokenizer("org/tiny@v2")) == len(load_tokenizer(str(foreign_folder)))
    assert revision_of("org/tiny") == hub_layout.COMMIT[:12]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("org/absent", "HF_HUB_OFFLINE is set, and the cache"),
        ("org/tiny@v9", "HF_HUB_OFFLINE is set, and the cache"),
        ("or g/tiny", "no hub id"),
        ("org/tiny/more", "the folder does not exist"),
        ("no-such-folder", "the folder does not exist"),
        ("", "the folder does not exist"),
    ],
)
def test_what_is_not_there_is_one_line(cache: Path, tiny_folder: Path, name: str, words: str) -> None:
    hub_layout.put(cache, "org/tiny", tiny_folder)
    started = time.perf_counter()
    for load in (revision_of, load_tokenizer, context_length_of, load_causal_lm):
        with pytest.raises(ArtifactError) as caught:
            load(name)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    assert time.perf_counter() - started < 5


def _response(status: int) -> httpx.Response:
    return httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/org/tiny"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (lambda: hub_errors.GatedRepoError("gated", response=_response(403)), "hf auth login"),
        (lambda: hub_errors.RepositoryNotFoundError("no", response=_response(404)), "no such model"),
        (lambda: hub_errors.RevisionNotFoundError("no", response=_response(404)), "no revision 'v9'"),
        (lambda: hub_errors.LocalEntryNotFoundError("no connection"), "does not answer"),
        (lambda: hub_errors.HfHubHTTPError("500 Server\nError", response=_response(500)), "500 Server"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception], words: str
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise error()

    monkeypatch.setattr(download, "snapshot_download", refuse)
    monkeypatch.setattr(download.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(ArtifactError) as caught:
        revision_of("org/tiny@v9")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_half_downloaded_snapshot_is_refused_by_the_names_that_lack(cache: Path, tiny_folder: Path) -> None:
    snapshot = hub_layout.put(cache, "org/tiny", tiny_folder)
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (snapshot / "model.safetensors").rename(snapshot / shards[0])
    (snapshot / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": shards[0], "b": shards[1]}})
    )
    with pytest.raises(ArtifactError, match=f"incomplete: {shards[1]} missing"):
        load_causal_lm("org/tiny")
    (snapshot / shards[0]).unlink()
    (snapshot / "model.safetensors.index.json").unlink()
    with pytest.raises(ArtifactError, match="incomplete"):
        load_causal_lm("org/tiny")


def test_a_repository_without_a_model_says_what_it_is(cache: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    hub_layout.put(cache, "org/adapter", adapter)
    with pytest.raises(ArtifactError, match="an adapter alone; merge it"):
        load_causal_lm("org/adapter")
    (adapter / "adapter_config.json").rename(adapter / "readme.json")
    hub_layout.put(cache, "org/data", adapter)
    with pytest.raises(ArtifactError, match=r"no config\.json"):
        load_causal_lm("org/data")


def test_a_folder_comes_before_a_hub_id_of_the_same_name(
    cache: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_layout.put(cache, "org/tiny", tiny_folder)
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("org/tiny")
    (tmp_path / "org").mkdir()
    assert not is_hub_id("org/tiny"), "a path below a folder that exists"
    shutil.copytree(tiny_folder, tmp_path / "org" / "tiny")
    assert revision_of("org/tiny") == revision_of(str(tiny_folder))


def test_a_revision_goes_behind_the_id_and_belongs_to_hub_ids_alone(tmp_path: Path) -> None:
    assert with_revision("org/tiny", "v2") == "org/tiny@v2"
    assert with_revision("org/tiny", None) == "org/tiny"
    assert is_hub_id("org/tiny@refs/pr/1")
    for name in (str(tmp_path), "tiny", "org/tiny@v1"):
        with pytest.raises(ConfigError, match="revision: got 'v2'"):
            with_revision(name, "v2")
    assert PolicyConfig(model="org/tiny", revision="v2").model == "org/tiny@v2"
    with pytest.raises(ConfigError, match="revision: got 'v2'"):
        PolicyConfig(model=str(tmp_path), revision="v2")


def test_attention_is_computed_as_the_options_say(tiny_folder: Path) -> None:
    with loading_options(LoadingOptions(attn_implementation="eager")):
        assert load_causal_lm(str(tiny_folder)).config._attn_implementation == "eager"
    assert load_causal_lm(str(tiny_folder)).config._attn_implementation == "sdpa"
    wrong = pytest.raises(ArtifactError, match=r"attn_implementation: the model does not allow .*fast")
    with loading_options(LoadingOptions(attn_implementation="fast")), wrong as error:
        load_causal_lm(str(tiny_folder))
    assert "\n" not in str(error.value)


def test_code_beside_the_weights_runs_only_if_named_and_nobody_is_asked(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "remote"))
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "never_heard_of"
    config["auto_map"] = {"AutoConfig": "own.OwnConfig"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(
        "from pathlib import Path\nfrom transformers import Qwen2Config\n"
        f"Path({str(tmp_path / 'ran')!r}).touch()\n"
        "class OwnConfig(Qwen2Config):\n    model_type = 'never_heard_of'\n"
    )
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question"))
    with pytest.raises(ArtifactError, match="trust_remote_code"):
        load_config(str(folder))
    assert not (tmp_path / "ran").exists()
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    with loading_options(LoadingOptions(trust_remote_code=True)):
        assert load_config(str(folder)).model_type == "never_heard_of"
    assert (tmp_path / "ran").exists()


def test_weights_are_hashed_once_per_file_and_change(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(weight_files, "_CACHED_FROM", 0)
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    read: list[str] = []
    hashed = weight_files._hash
    monkeypatch.setattr(weight_files, "_hash", lambda path: read.append(path) or hashed(path))

    def revision() -> str:
        weight_files._file_hash.cache_clear()  # what another process knows
        return revision_of(str(folder))

    first = revision()
    assert (revision(), len(read)) == (first, 1)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    assert revision() != first
    assert len(read) == 2
    (tmp_path / "cache" / "rlprm" / "weight_hashes.json").write_text("{damaged")
    assert revision() == revision() != first
    assert len(read) == 3
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")  # nowhere to write to
    assert revision() != first
    assert len(read) == 4


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("tokenizer_config.json", lambda text: text.replace("}", ', "own": 1}', 1)),
        ("generation_config.json", lambda text: text.replace("{", '{"max_length": 7, ', 1)),
        ("chat_template.jinja", lambda text: text + " "),
    ],
)
def test_other_files_than_the_weights_belong_to_the_identity(
    tiny_folder: Path, tmp_path: Path, file: str, change: Callable[[str], str]
) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    before = model_files(policy=str(folder))
    (folder / file).write_text(change((folder / file).read_text()))
    after = model_files(policy=str(folder))
    assert revision_of(str(folder)) == revision_of(str(tiny_folder))
    old, new = before["model_files"]["policy"], after["model_files"]["policy"]
    assert [name for name in old if old[name] != new[name]] == [file]
    (folder / "stage.json").write_text("{}")
    assert model_files(policy=str(folder)) == after, "records of this package are none of the model's files"


def test_an_index_of_the_other_kind_does_not_make_a_download_incomplete(
    cache: Path, tiny_folder: Path
) -> None:
    snapshot = hub_layout.put(cache, "org/tiny", tiny_folder)
    (snapshot / "pytorch_model.bin.index.json").write_text(
        json.dumps({"weight_map": {"a": "pytorch_model-1.bin"}})
    )
    assert revision_of("org/tiny") == hub_layout.COMMIT[:12]


def test_a_folder_named_like_the_organisation_is_named_in_the_message(
    cache: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_layout.put(cache, "org/tiny", tiny_folder)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    with pytest.raises(ArtifactError, match="hub was not asked, because there is a folder 'org' here"):
        revision_of("org/tiny")
    with pytest.raises(ArtifactError, match="a hub id has an organisation"):
        revision_of("gpt2")
