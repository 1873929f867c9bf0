from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from igos_bench.config import plain
from igos_bench.errors import UserError
from igos_bench.overrides import compose_config
from igos_bench.words import words_for, written

TEXTS = st.one_of(
    st.text(), st.text("ab0.,:=()[]{}'\"\\$ *~+-/#%"), st.sampled_from(["null", "1e3", "true", "inf", ""])
)
NUMBERS = st.one_of(st.integers(-(10**9), 10**9), st.floats(allow_nan=False, allow_infinity=False))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b_1", "sigma"]), inner)
    ),
    max_leaves=6,
)


@given(VALUES.filter(lambda value: "\0" not in str(value)))
def test_a_value_reads_back_as_it_was_written(value: Any) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"key={written(value)}"])
    assert not override.is_sweep_override()
    config = OmegaConf.create({"key": None})
    OmegaConf.update(config, "key", override.value())
    found = OmegaConf.to_container(config, resolve=True)
    assert isinstance(found, dict)
    assert found["key"] == value and repr(found["key"]) == repr(value)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["method=mask", "method.lambdas={28:[0.5,1e-7],112:[1,2]}", "method.baseline.kind=mean", "seed=1"],
        ["method=igos", "method.lambdas=tuned", "precision=bf16", "evaluate.batch_size=auto"],
        ["method=rise", "resolution=224", "data=folder", "data.root='/a b/c,d=e'", "data.limit=3", "data.name=mine"],
        ["model=timm", "model.architecture=resnet18", "model.mean=[0.5,0.5,0.5]", "model.weights=null"],
        ["model=vgg19", "model.weights='it\\'s.pth'", "protocol=rise", "protocol.name=mine", "protocol.n_steps=7"],
        ["maps='my maps'", "name=theirs", "protocol=igos_pp"],
    ],
)
def test_the_words_ask_for_the_same_configuration(words: list[str]) -> None:
    config = plain(asdict(compose_config(words)))
    found = plain(asdict(compose_config(words_for(config))))
    if config["maps"]:
        assert not [word for word in words_for(config) if word.startswith(("method", "resolution"))]
    assert found == config


def test_what_cannot_be_asked_for_is_named() -> None:
    config = plain(asdict(compose_config([])))
    with pytest.raises(UserError, match="no method YAML is named mine: .* say --config-dir FOLDER"):
        words_for(config | {"method": {"name": "mine"}})
    with pytest.raises(UserError, match="unknown key 'method.gone'"):
        words_for(config | {"method": {**config["method"], "gone": 1}})
    less = {**config["method"], "lambdas": {"28": [1.0, 20.0]}}
    with pytest.raises(UserError, match="the YAMLs that are here make method.lambdas otherwise"):
        words_for(config | {"method": less})


def test_yamls_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("{name: mine, library: timm, architecture: '???', weights: null}")
    words = ["model=mine", "model.architecture=test_resnet"]
    config = plain(asdict(compose_config(words, str(tmp_path))))
    flag, *found = words_for(config, str(tmp_path))
    assert flag == f"--config-dir={tmp_path}"
    assert found == ["method=igos", "model=mine", "data=sample", "protocol=paper", "resolution=28", words[1]]
