"""Backbones of the user's own, imported from real files: trained, resumed, loaded from elsewhere, refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from edge_adapt.cloud import ConfigError, TrainedRun, evaluate, load_run, train
from edge_adapt.edge import Bundle
from edge_adapt.export import export_bundle

NET = """
import torch
from torch import nn
from .parts import Gate


class MyNet(nn.Module):
    def __init__(self, sample_shape, outputs, width: int = 6, units: tuple[int, ...] = (8,)):
        super().__init__()
        features = torch.Size(sample_shape).numel()
        self.enter = nn.Linear(features, width)
        self.gate = Gate()
        self.inner = nn.Sequential()
        for index, count in enumerate(units):
            self.inner.add_module(f"hidden{index}", nn.Linear(width, count))
            width = count
        self.head = nn.Linear(width, outputs)
        self.register_buffer("trained_on", torch.tensor(0.25))

    def forward(self, x):
        return self.head(torch.tanh(self.inner(self.gate(self.enter(x.flatten(1))))))


def make(sample_shape, outputs):
    return MyNet(sample_shape, outputs, width=5)


def number(sample_shape, outputs):
    return 3


def broken(sample_shape, outputs):
    raise RuntimeError("no such layer")


class Wide(MyNet):
    def forward(self, x):
        return super().forward(x)[:, :1]


class Noisy(MyNet):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.5, self.training))


class Mixing(MyNet):
    def forward(self, x):
        return super().forward(x - x.mean(0))


class Branching(MyNet):
    def forward(self, x):
        return super().forward(x if x.shape[0] < 100 else -x)


class InPlace(MyNet):
    def forward(self, x):
        x = nn.functional.relu(self.enter(x.flatten(1)), inplace=True)
        x = self.gate(x)
        return self.head(self.inner(x).relu_())


class Plain(MyNet):
    def forward(self, x):
        return self.head(self.inner(self.gate(self.enter(x.flatten(1)).relu())).relu())


class Overwriting(MyNet):
    def forward(self, x):
        x = self.enter(x.flatten(1))
        return self.head(self.inner(x.relu_() + x))


class Squashing(MyNet):
    def forward(self, x):
        x = self.enter(x.flatten(1))
        return self.head(self.inner(torch.sigmoid_(x) + x))


class Leaking(MyNet):
    def forward(self, x):
        return self.head(self.inner(nn.functional.leaky_relu_(self.enter(x.flatten(1)))))


class Writing(MyNet):
    def forward(self, x):
        x = self.enter(x.flatten(1))
        return self.head(self.inner(torch.sigmoid(x, out=x)))


class Adding(MyNet):
    def forward(self, x):
        x = y = self.enter(x.flatten(1))
        y += 1
        return self.head(self.inner(x + y))


class Unused(MyNet):
    def __init__(self, sample_shape, outputs):
        super().__init__(sample_shape, outputs, units=(6,))

    def forward(self, x):
        return self.head(self.enter(x.flatten(1)))


class Tied(MyNet):
    def __init__(self, sample_shape, outputs):
        super().__init__(sample_shape, outputs, units=(6, 6))
        self.inner.hidden1.weight = self.inner.hidden0.weight


class Frozen(MyNet):
    def __init__(self, sample_shape, outputs):
        super().__init__(sample_shape, outputs)
        self.enter.requires_grad_(False)


class Cut(MyNet):
    def forward(self, x):
        return self.head(self.inner(self.enter(x.flatten(1)).detach()))


class CutEverywhere(MyNet):
    def forward(self, x):
        return super().forward(x).detach()


class Recurrent(nn.Module):
    def __init__(self, sample_shape, outputs):
        super().__init__()
        self.cells = nn.GRU(sample_shape[-1], 4, batch_first=True)
        self.head = nn.Linear(4, outputs)

    def forward(self, x):
        return self.head(self.cells(x[:, None])[0][:, -1])
"""
PARTS = (
    "from torch import nn\n\n\nclass Gate(nn.Module):\n    def forward(self, x):\n        return x.relu()\n"
)
SHORT = {
    "train.outer_steps": 2,
    "train.validate_every": 1,
    "train.validation_tasks": 2,
    "train.test_tasks": 2,
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The working directory holds a package; its name differs from test to test, as Python keeps what it imported."""
    name = f"nets_{abs(hash(tmp_path.name))}"
    work = tmp_path / "work"
    (work / name).mkdir(parents=True)
    (work / name / "__init__.py").write_text("")
    (work / name / "mine.py").write_text(NET)
    (work / name / "parts.py").write_text(PARTS)
    monkeypatch.chdir(work)
    yield f"{name}.mine"
    for module in [key for key in sys.modules if key.split(".")[0] == name]:
        del sys.modules[module]


def train_sinusoid(package: str, out: Path, name: str = "MyNet", **changes: object) -> TrainedRun:
    overrides = {**SHORT, "backbone": f"{package}:{name}", "architecture.hidden": "none", **changes}
    return train("maml-mlp-sinusoid-10shot", out, overrides)


def forget(package: str) -> None:
    for module in [key for key in sys.modules if key.split(".")[0] == package.split(".")[0]]:
        del sys.modules[module]


def test_a_module_of_the_working_directory_trains_and_is_found_again_from_anywhere(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list(sys.path)
    options = {"architecture.width": 7, "architecture.units": [9, 4]}
    run = train_sinusoid(package, tmp_path / "run", **options)
    assert [layer.name for layer in run.layers] == ["enter", "inner.hidden0", "inner.hidden1", "head"]
    assert [layer.channels_out for layer in run.layers] == [7, 9, 4, 1]
    assert run.config.backbone_root == str(tmp_path / "work")
    assert sys.path == before
    monkeypatch.chdir(tmp_path)
    forget(package)
    again = load_run(tmp_path / "run")
    assert again.config == run.config
    assert evaluate(again, tasks=2).mse == run.test.mse
    x = torch.linspace(-5, 5, 7)[:, None]
    with torch.no_grad():
        assert torch.equal(again.module()(x), run.module()(x))
    bundle = Bundle.open(export_bundle(tmp_path / "run", tmp_path / "bundle"))
    assert bundle.files.manifest.name == "MyNet-sinusoid-maml"
    outputs = bundle.adapt(x.numpy(), targets=np.sin(x.numpy()), engine="reference").logits(x.numpy())
    assert outputs.shape == (7, 1)


def test_a_moved_run_finds_the_module_where_one_works(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_sinusoid(package, tmp_path / "run")
    (tmp_path / "work").rename(tmp_path / "other")
    forget(package)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"No module named '{package[:5]}.*; it is looked for in"):
        load_run(tmp_path / "run")
    monkeypatch.chdir(tmp_path / "other")
    assert load_run(tmp_path / "run").outputs == 1


def test_a_run_resumes_with_its_own_module_and_a_function_may_build_one(package: str, tmp_path: Path) -> None:
    whole = train_sinusoid(package, tmp_path / "run", "make")
    assert whole.layers[0].channels_out == 5
    (tmp_path / "run" / "result.json").unlink()
    overrides = {**SHORT, "backbone": f"{package}:make", "architecture.hidden": "none"}
    resumed = train("maml-mlp-sinusoid-10shot", tmp_path / "run", overrides, resume=True)
    assert resumed.test == whole.test


def test_it_classifies_too_with_attention(package: str, tmp_path: Path) -> None:
    overrides = {**SHORT, "backbone": f"{package}:MyNet", "train.tasks_per_step": 2, "method.penalty": "none"}
    run = train("pmeta-conv4-glyphs", tmp_path / "run", overrides)
    assert run.layers[-1].channels_out == run.outputs == 5
    assert {name.split(".fw")[0] for name in run.attention if ".fw" in name} == {
        "attention.enter",
        "attention.inner.hidden0",
    }
    assert 0 <= run.test.accuracy <= 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "Mynet",
            r"has no class or function 'Mynet'; it has Adding, Branching, Cut, CutEverywhere, Frozen, Gate, InPlace,",
        ),
        ("number", r"expected a torch module, got int"),
        ("broken", r"building it for samples \(1,\) fails: RuntimeError: no such layer"),
        ("Noisy", r"other values a second time; remove dropout"),
        ("Mixing", r"depend on the other samples of its batch"),
        (
            "Branching",
            r"torch\.fx cannot trace it: .*symbolically traced variables cannot be used as inputs to control flow",
        ),
        ("Overwriting", r"relu_ changes in place what others read; use inplace = False"),
        ("Squashing", r"sigmoid_ changes its input in place; use sigmoid"),
        ("Leaking", r"leaky_relu_ changes its input in place; use leaky_relu"),
        ("Writing", r"sigmoid writes into another tensor; leave out = \.\.\. away"),
        ("Adding", r"torch\.fx traces other values than it computes; use y = y \+ x for y \+= x"),
        ("Unused", r"parameter inner\.hidden0\.weight plays no part in the output"),
        ("Tied", r"inner\.hidden0\.weight and inner\.hidden1\.weight are one parameter"),
        ("Frozen", r"parameter enter\.weight needs no gradient, but meta-training would change it"),
        ("Cut", r"no gradient reaches parameter enter\.weight; remove the detach"),
        ("CutEverywhere", r"no gradient reaches parameter enter\.weight; remove the detach"),
        ("Recurrent", r"layer cells: expected conv, linear, GroupNorm or BatchNorm, got GRU"),
    ],
)
def test_a_module_that_cannot_be_meta_trained_is_refused_in_one_line(
    package: str, name: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"^backbone: {package}:{name}: .*{message}") as refused:
        train_sinusoid(package, tmp_path / "run", name)
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_activations_in_place_change_no_number(package: str, tmp_path: Path) -> None:
    overrides = {**SHORT, "train.tasks_per_step": 2, "method.penalty": "none"}
    runs = {
        name: train("pmeta-conv4-glyphs", tmp_path / name, {**overrides, "backbone": f"{package}:{name}"})
        for name in ("InPlace", "Plain")
    }
    assert runs["InPlace"].test == runs["Plain"].test
    for name, value in runs["Plain"].meta.learned.items():
        assert torch.equal(runs["InPlace"].meta.learned[name], value), name


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_outputs_and_options_that_do_not_fit_are_refused(package: str, tmp_path: Path) -> None:
    overrides = {**SHORT, "backbone": f"{package}:Wide"}
    with pytest.raises(ConfigError, match=r"of 3 samples it returns \(3, 1\), expected \(3, 5\)"):
        train("pmeta-conv4-glyphs", tmp_path / "run", overrides)
    with pytest.raises(ConfigError, match=r"has no option 'depth'; it has width, units"):
        train_sinusoid(package, tmp_path / "run", **{"architecture.depth": 2})
    with pytest.raises(
        ConfigError, match=r"parameter enter\.weight has shape \(0, 1\), without a number to learn"
    ):
        train_sinusoid(package, tmp_path / "run", **{"architecture.width": 0})
    with pytest.raises(ConfigError, match=r"architecture\.width: expected a whole number, got 'wide'"):
        train_sinusoid(package, tmp_path / "run", **{"architecture.width": "wide"})


def test_a_path_that_names_nothing_is_refused(package: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No module named 'elsewhere'; it is looked for in .*work"):
        train_sinusoid("elsewhere", tmp_path / "run")
    with pytest.raises(ConfigError, match=r"backbone must be one of .*, or your own as package\.module:Name"):
        train_sinusoid(package, tmp_path / "run", **{"backbone": "mine.MyNet"})
    (tmp_path / "work" / "json.py").write_text(NET)
    with pytest.raises(ConfigError, match=r"has a module json, but another one is loaded, .*; rename yours"):
        train_sinusoid("json", tmp_path / "run")
    (tmp_path / "work" / "faulty_net.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match=r"importing faulty_net fails: ZeroDivisionError: division by zero"):
        train_sinusoid("faulty_net", tmp_path / "run")
    (tmp_path / "work" / "leaving_net.py").write_text("import sys\nsys.exit(3)")
    with pytest.raises(ConfigError, match=r"importing leaving_net fails: SystemExit: 3"):
        train_sinusoid("leaving_net", tmp_path / "run")
