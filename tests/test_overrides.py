"""Mistakes on the command line, found before anything heavy is imported: each is one readable line."""

from __future__ import annotations

import pytest

from igos_bench.errors import UserError
from igos_bench.methods import get_method
from igos_bench.methods.regulariser import lambdas_at
from igos_bench.overrides import check_overrides, compose_config
from igos_bench.prepare import prepare

MISTAKES = {
    "resolution=28,14": "several values are a sweep, which needs the flag -m",
    "method=igos,mask": "several values are a sweep, which needs the flag -m",
    "+hydra.foo=1": "keys cannot be added or removed",
    "~method": "keys cannot be added or removed",
    "method@x=igos": "write method=VALUE, without @",
    "hydra.foo=1": "Could not override 'hydra.foo'",
    "hydra/launcher=foo": "Could not find 'hydra/launcher/foo'",
    "method.lambdas.14=[1,2]": "Could not override 'method.lambdas.14'",
    "model=resnet18": "for any classifier: model=timm model.architecture=resnet18",
}


@pytest.mark.parametrize("word", MISTAKES)
def test_a_mistake_is_one_line(word: str) -> None:
    with pytest.raises(UserError) as caught:
        check_overrides([word])
    assert MISTAKES[word] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sweep_may_have_several_values() -> None:
    check_overrides(["resolution=28,14"], sweep=True)


REFUSED = {
    "evaluate.batch_size=-1": "evaluate.batch_size must be at least 1, found -1",
    "evaluate.batch_size=0": "evaluate.batch_size must be at least 1, found 0",
    "data.name=../../escaped": "data.name='../../escaped' becomes the name of a folder",
    "results_dir=": "results_dir is empty: name a folder",
    "protocol.deletion_baseline.kernel_size=801": "a kernel_size of 801 reaches beyond a mirrored image: at most 447",
    "method.baseline=null": "method.baseline=None: write {kind: blur",
    "method.lambdas={28:[1]}": "igos needs (l1, l2) by resolution",
    "method.lambdas={28:[a,b]}": "igos needs (l1, l2) by resolution",
    "method.lambdas=null": "igos needs (l1, l2) by resolution",
    "resolution=27": "igos has no resolution 27 on efficientnet_lite0 (did you mean 28?); available: 224, 112, 28, 14",
}


@pytest.mark.parametrize("word", REFUSED)
def test_a_value_that_cannot_be_run_is_refused_before_anything_is_computed(word: str) -> None:
    with pytest.raises(UserError) as caught:
        prepare(compose_config([word]))
    assert REFUSED[word] in str(caught.value)


def test_a_model_without_its_architecture() -> None:
    with pytest.raises(UserError, match="model.architecture has no value: write it as KEY=VALUE"):
        compose_config(["model=timm"])


def test_the_advice_about_lambdas_works() -> None:
    with pytest.raises(
        UserError, match=r"has no \(l1, l2\) for resolution 14, .* say 'method.lambdas=\{14:\[l1,l2\]\}'"
    ):
        lambdas_at({28: (1.0, 20.0)}, 14, None, "igos")  # type: ignore[arg-type]
    config = compose_config(["method.lambdas={14:[1,2]}", "resolution=14"])
    assert get_method("igos", {"lambdas": config.method["lambdas"]}).lambdas[14] == [1, 2]  # type: ignore[attr-defined]
