"""Loading gives the right model or one clear line: never random weights, never a wait for a network."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from rlprm.errors import ArtifactError
from rlprm.models.loading import (
    load_causal_lm,
    load_scalar_model,
    load_tokenizer,
    revision_of,
)

IDS = torch.arange(1, 41)[None]


@pytest.fixture
def copy(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny causal model that a test may damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


@pytest.fixture
def prm(tiny_folder: Path, tmp_path: Path) -> tuple[PreTrainedModel, Path]:
    """A scalar model whose head has learned something, and where it is saved."""
    model = load_scalar_model(str(tiny_folder))
    torch.nn.init.normal_(model.score.weight)
    torch.nn.init.constant_(model.score.bias, 0.3)
    model.save_pretrained(tmp_path / "prm")
    return model.eval(), tmp_path / "prm"


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_causal_model_becomes_a_scalar_model_with_its_body_and_a_head_of_zeros(tiny_folder: Path) -> None:
    causal, scalar = load_causal_lm(str(tiny_folder)), load_scalar_model(str(tiny_folder))
    body = dict(scalar.model.named_parameters())
    assert len(body) > 20
    for name, weight in causal.model.named_parameters():
        assert torch.equal(body[name], weight)
    assert scalar.score.out_features == 1
    assert not scalar.score.weight.any()
    assert not scalar.score.bias.any()
    assert not scalar.eval()(input_ids=IDS).logits.any()


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_head_of_any_architecture_starts_at_zero(tmp_path: Path, architecture: str) -> None:
    small = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = {
        "gpt2": lambda: GPT2LMHeadModel(
            GPT2Config(vocab_size=300, n_embd=32, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2)
        ),
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**small, intermediate_size=32)),
    }[architecture]()
    model.save_pretrained(tmp_path)
    scalar = load_scalar_model(str(tmp_path)).eval()
    assert not scalar(input_ids=IDS).logits.any()
    assert load_causal_lm(str(tmp_path)).eval()(input_ids=IDS).logits.std() > 0


def test_a_saved_scalar_model_loads_with_stock_transformers_and_gives_the_same_numbers(
    prm: tuple[PreTrainedModel, Path],
) -> None:
    model, folder = prm
    stock = AutoModelForTokenClassification.from_pretrained(folder).eval()
    ours = load_scalar_model(str(folder)).eval()
    with torch.no_grad():
        expected = model(input_ids=IDS).logits
        assert expected.shape == (1, 40, 1)
        assert expected.std() > 0.1
        assert torch.equal(stock(input_ids=IDS).logits, expected)
        assert torch.equal(ours(input_ids=IDS).logits, expected)


@pytest.mark.trap("dropout of the head")
def test_trap_token_classification_brings_no_dropout_along(prm: tuple[PreTrainedModel, Path]) -> None:
    model, folder = prm
    for loaded in (
        model,
        load_scalar_model(str(folder)),
        AutoModelForTokenClassification.from_pretrained(folder),
    ):
        assert loaded.config.classifier_dropout == 0.0
        training, evaluating = (
            loaded.train()(input_ids=IDS).logits,
            loaded.eval()(input_ids=IDS).logits,
        )
        assert torch.equal(training, evaluating)
    assert load_scalar_model(str(folder), dropout=0.4).dropout.p == 0.4


@pytest.mark.parametrize("load", [load_causal_lm, load_scalar_model, load_tokenizer, revision_of])
def test_what_is_missing_is_said_in_one_line_at_once(load: Callable[[str], object], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    started = time.perf_counter()
    for path in ("runs/no-such-run", "nobody/no-such-model", str(tmp_path / "no"), str(tmp_path / "empty")):
        with pytest.raises(ArtifactError) as caught:
            load(path)
        assert path in str(caught.value)
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, FileNotFoundError)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("load", [load_causal_lm, load_scalar_model])
def test_damaged_checkpoints_are_refused(load: Callable[[str], object], copy: Path) -> None:
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match="cannot load a model"):
        load(str(copy))
    weights.write_bytes(whole)
    load(str(copy))
    change_weights(copy, lambda w: w.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ArtifactError, match=r"lacks weights of its model: model\.layers\.1\.mlp\.up_proj"):
        load(str(copy))
    (copy / "config.json").write_text("{")
    with pytest.raises(ArtifactError, match="not a valid JSON file"):
        load(str(copy))


def test_a_scalar_model_is_not_taken_for_a_policy(prm: tuple[PreTrainedModel, Path]) -> None:
    with pytest.raises(ArtifactError, match="scalar head"):
        load_causal_lm(str(prm[1]))


def test_a_classifier_of_several_labels_is_not_taken_for_a_scalar_model(
    tiny_folder: Path, tmp_path: Path
) -> None:
    AutoModelForTokenClassification.from_pretrained(tiny_folder, num_labels=3).save_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match=r"one label: other shapes of score\.bias, score\.weight"):
        load_scalar_model(str(tmp_path))


def test_dtypes_go_by_name(tiny_folder: Path) -> None:
    cpu = torch.device("cpu")
    policy = load_causal_lm(str(tiny_folder), dtype="bfloat16", device=cpu)
    assert {p.dtype for p in policy.parameters()} == {torch.bfloat16}
    scalar = load_scalar_model(str(tiny_folder), dtype="bfloat16", device=cpu)
    assert {p.dtype for p in scalar.model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in scalar.score.parameters()} == {torch.float32}


def test_a_revision_belongs_to_the_weights_alone(tiny_folder: Path, copy: Path) -> None:
    revision = revision_of(str(tiny_folder))
    assert len(revision) == 12
    assert revision_of(str(copy)) == revision
    (copy / "stage.json").write_text("{}")
    (copy / "training_args.bin").write_bytes(b"x")
    assert revision_of(str(copy)) == revision

    def nudge(weights: dict[str, torch.Tensor]) -> None:
        weights["model.norm.weight"][0] += 1e-6

    change_weights(copy, nudge)
    assert revision_of(str(copy)) != revision


def test_weights_in_the_old_format_have_a_revision_too(tmp_path: Path) -> None:
    revisions = set()
    for content in (b"a", b"b"):
        (tmp_path / "pytorch_model.bin").write_bytes(content)
        revisions.add(revision_of(str(tmp_path)))
    assert len(revisions) == 2
