"""Mistakes on the command line, found before anything heavy is imported: each is one readable line."""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
import pytest
from hydra import compose
from omegaconf import DictConfig, OmegaConf

from igos_bench import composing
from igos_bench.errors import UserError
from igos_bench.methods import get_method
from igos_bench.methods.regulariser import lambdas_at
from igos_bench.overrides import CONF, check_overrides, compose_config, compose_jobs, typed
from igos_bench.prepare import prepare

MISTAKES = {
    "resolution=28,14": "several values are a sweep, which needs the flag -m",
    "method=igos,mask": "several values are a sweep, which needs the flag -m",
    "+hydra.foo=1": "keys cannot be added or removed",
    "~method": "keys cannot be added or removed",
    "method@x=igos": "write method=VALUE, without @",
    "hydra.foo=1": "of Hydra's own settings only hydra/launcher, hydra.launcher.KEY",
    "hydra/launcher=foo": "Could not find 'hydra/launcher/foo'",
    "method.lambdas.14=[1,2]": "Could not override 'method.lambdas.14'",
    "-m seed=interval(1,2)": "seed=interval(1,2): write the values of a sweep out, seed=VALUE,VALUE",
    "-m seed=range(3),[1]": "seed=range(3),[1]: write the values of a sweep out",
    "-m method=glob(*)": "method=glob(*): write the values of a sweep out",
    "-m hydra.verbose=true,false": "hydra.verbose=true,false: Hydra's own settings have one value, also in a sweep",
    "model=resnet18": "for any classifier: model=timm model.architecture=resnet18",
}


@pytest.mark.parametrize("word", MISTAKES)
def test_a_mistake_is_one_line(word: str) -> None:
    with pytest.raises(UserError) as caught:
        check_overrides([word.removeprefix("-m ")], sweep=word.startswith("-m "))
    assert MISTAKES[word] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sweep_may_have_several_values() -> None:
    check_overrides(["resolution=28,14"], sweep=True)


@pytest.mark.parametrize("model", ["efficientnet_lite0", "resnet50", "vgg19", "timm", "torchvision"])
def test_every_model_can_be_given_weights_with_their_hash(model: str) -> None:
    words = [f"model={model}", "model.weights=mine.pth", "model.sha256=57934424", "model.architecture=resnet18"]
    assert compose_config(words).model.sha256 == "57934424"


JOBS = [
    "-m",
    "seed=1 seed=2",
    "method=mask method.lambdas={28:[1,2]} method.noise='rgb' model.mean=[0.1,0.2,0.3] seed=7",
    "-m experiment=table1 data.root=folder",
    "-m experiment=table1 data.root=folder resolution=14 method=igos,grad_cam data.limit=1,2",
    "-m method=mask,igos method.lambdas={28:[1,2],14:[3,4]} method.noise='rgb',authors seed=range(0,3)",
    "-m protocol=rise,paper results_dir='a,b',\"c\" data.list=null,x.txt protocol.deletion_baseline.sigma=1e1",
    "-m model=timm model.architecture=a,b model.mean=[0.1,0.2,0.3] hydra.job.name=here name=${model.name}",
]


@pytest.mark.parametrize("line", JOBS)
def test_jobs_are_those_of_hydras_own_sweeper(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs: list[object] = []

    def job(config: DictConfig) -> None:
        theirs.append(OmegaConf.to_container(config, resolve=True))

    monkeypatch.setattr(sys, "argv", ["igos-bench", *line.split(), f"hydra.sweep.dir={tmp_path}"])
    hydra.main(config_path=CONF, config_name="config", version_base="1.3")(job)()
    words = [word for word in line.split() if word != "-m"]
    ours = [OmegaConf.to_container(config, resolve=True) for config in compose_jobs(words, sweep="-m" in line)]
    assert ours == theirs


def test_jobs_of_one_choice_share_a_composition(monkeypatch: pytest.MonkeyPatch) -> None:
    composed: list[object] = []
    monkeypatch.setattr(
        composing, "compose", lambda *words, **options: composed.append(words) or compose(*words, **options)
    )
    words = ["experiment=table1", "data.root=folder", "seed=1,2,3"]
    configs = list(compose_jobs(words, sweep=True))
    assert len({id(config) for config in configs}) == len(configs) == 6 * 4 * 3
    assert len(composed) == 1 + 6, "what the experiment sweeps over, and each method"


def test_a_yaml_of_ones_own_may_speak_of_hydra(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("name: ${hydra:runtime.choices.method}\nlayout: sample\n")
    jobs = compose_jobs(["data=mine", "method=rise,igos", "seed=1,2"], str(tmp_path), sweep=True)
    assert [typed(config).data.name for config in jobs] == ["rise", "rise", "igos", "igos"]


def test_a_value_in_a_sweep_that_does_not_fit_is_one_line() -> None:
    with pytest.raises(UserError, match="Key '14' is not in struct full_key: method.lambdas.14") as caught:
        list(compose_jobs(["method.lambdas.14=[1,2],[3,4]"], sweep=True))
    assert "\n" not in str(caught.value)


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
    "method.first_step=nan": "method.first_step=nan: give a finite number",
    "method.lambdas={28:[1,-.inf]}": "igos needs (l1, l2) by resolution",
    "method.lambdas={28:[1,-inf]}": "method.lambdas.28.1=-inf: give a finite number",
    "protocol.insertion_baseline.sigma=inf": "protocol.insertion_baseline.sigma=inf: give a finite number",
    "model.mean=[0,nan,0]": "model.mean.1=nan: give a finite number",
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


def test_an_experiment_that_sweeps_needs_the_flag_or_one_cell() -> None:
    words = ["experiment=table1", "data=sample"]
    with pytest.raises(
        UserError, match=r"experiment=table1 is a sweep over method and resolution, .* flag -m; .*: method=... resol"
    ):
        check_overrides(words)
    with pytest.raises(UserError, match="is a sweep over resolution, .*: resolution=..."):
        check_overrides([*words, "method=igos"])
    check_overrides([*words, "method=igos", "resolution=28"])
    check_overrides(words, sweep=True)


def test_a_key_that_a_method_of_the_experiment_does_not_have() -> None:
    with pytest.raises(UserError, match=r"unknown key for method=\w+ 'method.lambdas'"):
        check_overrides(["experiment=table1", "method.lambdas=tuned"], sweep=True)
    check_overrides(["experiment=table1", "method=igos,mask", "method.lambdas=tuned"], sweep=True)
