"""Methods: what they start from, what they adapt, their Adam groups, a closed form."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from edge_adapt.cloud import outer
from edge_adapt.cloud.inner.base import Meta, MethodConfig
from edge_adapt.cloud.inner.device import adapt
from edge_adapt.cloud.inner.network import Network
from edge_adapt.cloud.outer import METHODS, Batch
from torch import nn

from .plain import random_batch, small_network

ATTENTION = 2 * 4 * 4  # two modules of four tensors for each of the four layers below the output


def test_a_new_method_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "newest.py").write_text(
        "from edge_adapt.cloud.outer.maml import Maml\n\n\n"
        'class Newest(Maml):\n    name, paper, summary = "newest", "nobody, never", "as MAML"\n'
    )
    monkeypatch.setattr(outer, "__path__", [*outer.__path__, str(tmp_path)])
    try:
        found = {method.name: method for method in outer.methods_of_folder()}
    finally:
        sys.modules.pop(f"{outer.__name__}.newest", None)
    assert found.keys() == {*METHODS, "newest"}
    assert found["newest"](small_network(), MethodConfig()).init(0).learned


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_start_and_gradient(name):
    config = MethodConfig(inner_steps=2)
    first, again = (METHODS[name](small_network(), config) for _ in range(2))
    one, two = first.init(11).to(torch.float64), again.init(11).to(torch.float64)
    batch = random_batch()
    found, repeated = first.meta_gradient(one, batch, 0.0), again.meta_gradient(two, batch, 0.0)
    assert found.grads.keys() == one.learned.keys()
    for key, value in found.grads.items():
        assert torch.equal(one.learned[key], two.learned[key])
        assert torch.equal(value, repeated.grads[key])
    assert found.metrics == repeated.metrics


def test_what_each_method_learns():
    counts = {}
    for name, method in METHODS.items():
        meta = method(small_network(), MethodConfig()).init(0)
        extra = [key for key in meta.learned if key not in small_network().parameters]
        counts[name] = (sum(key.startswith("attention.") for key in extra), "alpha" in extra)
    assert counts.pop("p-meta") == (ATTENTION, True)
    assert counts.pop("maml++") == (0, True)
    assert set(counts.values()) == {(0, False)}


@pytest.mark.parametrize("name", METHODS)
def test_adam_groups_cover_what_is_learned_once_and_alpha_has_its_own_rate(name):
    method = METHODS[name](small_network(), MethodConfig(inner_step_size=0.4, alpha_rate=0.01))
    meta = method.init(0)
    groups = method.param_groups(meta, 2e-3)
    names = [key for group in groups for key in group["names"]]
    assert sorted(names) == sorted(meta.learned)
    rates = {key: group["lr"] for group in groups for key in group["names"]}
    assert all(rates[key] == 2e-3 for key in names if key != "alpha")
    if "alpha" in rates:
        assert rates["alpha"] == pytest.approx(0.01 * 0.4)


def test_p_meta_refuses_norms_that_its_attention_cannot_see_when_it_is_made():
    network = small_network(norm=lambda channels: nn.GroupNorm(channels, channels))
    METHODS["p-meta"](network, MethodConfig(attention=False))
    with pytest.raises(
        ValueError, match="attention: layer norm1 needs more than one channel per group, got 4"
    ):
        METHODS["p-meta"](network, MethodConfig())


def test_anil_adapts_the_output_layer_only():
    network = small_network()
    method = METHODS["anil"](network, MethodConfig(inner_steps=2))
    meta, batch = method.init(0).to(torch.float64), random_batch()
    weights = adapt(network, method.config, meta, batch.support_x, batch.support_y).weights
    changed = {name for name, value in weights.items() if value.dim() > meta.learned[name].dim()}
    assert changed == {"fc.weight", "fc.bias"}


def test_one_step_of_maml_on_softmax_regression_has_its_closed_form():
    """dL/dw = (1 - alpha * H) g_Q(w - alpha * g), H = mean_n x x' (x) (diag p - p p')."""
    module = nn.Sequential()
    module.add_module("flatten", nn.Flatten())
    module.add_module("fc", nn.Linear(4, 3, bias=False))
    network = Network(module.double(), (1, 2, 2))
    generator = torch.Generator().manual_seed(0)
    x, q = (torch.randn(1, n, 1, 2, 2, dtype=torch.float64, generator=generator) for n in (6, 5))
    y, z = torch.tensor([[0, 1, 2, 0, 1, 2]]), torch.tensor([[2, 0, 1, 1, 0]])
    method = METHODS["maml"](network, MethodConfig(inner_steps=1, inner_step_size=0.7))
    meta = method.init(0).to(torch.float64)
    found = method.meta_gradient(meta, Batch(x, y, q, z), 0.0).grads["fc.weight"]

    def gradient(w, rows, labels):
        p = (rows @ w.T).softmax(-1)
        return (p - nn.functional.one_hot(labels, 3)).T @ rows / len(rows), p

    w, rows, queries = meta.learned["fc.weight"], x[0].flatten(1), q[0].flatten(1)
    g, p = gradient(w, rows, y[0])
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    hessian = torch.einsum("ni,nab,nj->aibj", rows, curvature, rows) / len(rows)
    alpha = meta.alpha[0, 0]
    outer, _ = gradient(w - alpha * g, queries, z[0])
    expected = outer - alpha * torch.einsum("aibj,ai->bj", hessian, outer)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_meta_parameters_say_which_layers_are_updated_and_how_many_step_sizes_are_zero():
    alpha = torch.tensor([[0.0, 0.1, 0.0, 0.0], [0.0, 0.2, -0.3, 0.0]])
    for meta in (Meta({"alpha": alpha}, {}), Meta({}, {"alpha": alpha})):
        assert meta.updated.tolist() == [False, True, True, False]
        assert meta.zero_share == 5 / 8


def test_resuming_from_saved_meta_parameters_gives_the_same_numbers():
    """after_step and the gradient depend on nothing but meta, batch and progress."""
    method = METHODS["p-meta"](small_network(), MethodConfig(inner_steps=2, penalty="activations"))
    meta, batch = method.init(0).to(torch.float64), random_batch()
    result = method.meta_gradient(meta, batch, 0.3)
    stepped = method.after_step(meta, result, 0.3)
    fresh = METHODS["p-meta"](small_network(), method.config)
    copy = Meta(
        {k: v.clone() for k, v in stepped.learned.items()}, {k: v.clone() for k, v in stepped.fixed.items()}
    )
    one, two = method.meta_gradient(stepped, batch, 0.4), fresh.meta_gradient(copy, batch, 0.4)
    assert all(torch.equal(one.grads[k], two.grads[k]) for k in one.grads)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("inner_steps", 0, "at least 1"),
        ("inner_step_size", 0.0, "above 0"),
        ("penalty", "peaks", "one of none, activations"),
        ("rho_fw", 1.0, r"in \[0, 1\)"),
        ("bw_input", "norm", "one of rms, raw"),
        ("target_fraction", 1.5, r"in \[0, 1\]"),
        ("cap", 0, "at least 1"),
        ("tasks_per_chunk", 0, "at least 1"),
        ("inner_step_size", float("inf"), "finite"),
        ("penalty_strength", float("inf"), "finite"),
        ("alpha_rate", float("nan"), "finite"),
        ("gradient_clamp", float("inf"), "finite"),
    ],
)
def test_settings_name_the_field_that_is_wrong(field, value, expected):
    with pytest.raises(ValueError, match=f"{field} must be {expected}.*got {value!r}"):
        MethodConfig(**{field: value})
