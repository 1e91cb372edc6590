"""Every variant of a study is a recipe with settings that exist, so that no study ends after hours."""

from __future__ import annotations

import pytest

from rlprm.prm.config import PRMConfig
from rlprm.rl.config import RLConfig
from studies.prm_recipe.run import VARIANTS as PRM_VARIANTS
from studies.prm_recipe.run import Variant
from studies.rl.run import COMMON
from studies.rl.run import VARIANTS as RL_VARIANTS
from studies.stages import parsed

TRAINED = [name for name, variant in PRM_VARIANTS.items() if variant.recipe]


@pytest.mark.parametrize("name", TRAINED)
def test_a_variant_of_the_prm_study_is_a_recipe_with_settings_that_exist(name: str) -> None:
    variant = PRM_VARIANTS[name]
    config = parsed(PRMConfig, variant.recipe, {**variant.settings, "seed": 3})
    assert config.seed == 3


@pytest.mark.parametrize("name", RL_VARIANTS)
def test_a_variant_of_the_rl_study_is_a_recipe_with_settings_that_exist(name: str) -> None:
    variant = RL_VARIANTS[name]
    config = parsed(RLConfig, "train_rl", {**COMMON, **variant.settings, "prm": variant.prm})
    assert config.advantage == variant.settings.get("advantage", "turn_gae")


@pytest.mark.parametrize("variant", [v for v in PRM_VARIANTS.values() if v.weighs])
def test_a_weighed_variant_weighs_one_that_is_trained(variant: Variant) -> None:
    assert variant.weighs in TRAINED
