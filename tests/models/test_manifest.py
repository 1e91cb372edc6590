"""What a PRM says of itself is kept, and a setting that does not fit is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rlprm.errors import ArtifactError, DataError, MismatchError
from rlprm.models.manifest import FILE, Manifest
from tests.toys.manifests import manifest

MANIFEST = manifest("0123456789abcdef", env_kwargs={"levels": ["a", "b"]})


def test_a_manifest_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    MANIFEST.save(tmp_path)
    assert Manifest.load(tmp_path) == MANIFEST
    assert json.loads((tmp_path / FILE).read_text())["label_estimator_kwargs"] == {"lam": 0.95}


def test_a_manifest_from_before_some_settings_has_what_was_usual(tmp_path: Path) -> None:
    replace(MANIFEST, last_step_weight=3.0).save(tmp_path)
    assert Manifest.load(tmp_path).last_step_weight == 3.0
    fields = json.loads((tmp_path / FILE).read_text())
    for name in ("head", "lm_scale", "last_step_weight"):
        del fields[name]
    (tmp_path / FILE).write_text(json.dumps(fields))
    assert Manifest.load(tmp_path) == MANIFEST


def test_a_folder_without_one_is_not_a_prm(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=f"is not a PRM: no {FILE}"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda f: f.pop("template"), "does not fit this version.*template"),
        (lambda f: f.update(new_field=1), "does not fit this version.*new_field"),
        (lambda f: f.update(format=2), "has format 2, this version reads 1"),
    ],
)
def test_a_manifest_of_another_version_is_refused(tmp_path: Path, change, complaint: str) -> None:  # type: ignore[no-untyped-def]
    MANIFEST.save(tmp_path)
    fields = json.loads((tmp_path / FILE).read_text())
    change(fields)
    (tmp_path / FILE).write_text(json.dumps(fields))
    with pytest.raises(DataError, match=complaint):
        Manifest.load(tmp_path)


def test_a_manifest_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("[1]")
    with pytest.raises(DataError, match="does not fit this version"):
        Manifest.load(tmp_path)


def test_every_difference_from_the_setting_is_named() -> None:
    MANIFEST.require(end="declared", template="0123456789abcdef")
    MANIFEST.require()
    with pytest.raises(MismatchError) as caught:
        MANIFEST.require(end="on_success", prompt="none", round_limit=8)
    assert "end: trained with 'declared', used with 'on_success'" in str(caught.value)
    assert "round_limit: trained with None, used with 8" in str(caught.value)
    assert "prompt" not in str(caught.value)
    with pytest.raises(MismatchError):
        replace(MANIFEST, env_kwargs={}).require(env_kwargs={"levels": ["a", "b"]})
