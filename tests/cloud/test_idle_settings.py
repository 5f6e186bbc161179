"""Settings that were asked for and would do nothing are refused before training, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from edge_adapt.cloud import train
from edge_adapt.cloud.errors import ConfigError
from edge_adapt.cloud.recipes import recipe_names, stated_in

PMETA, PROTONETS, SIMPLE = "pmeta-conv4-glyphs", "protonets-conv4-glyphs", "simple-cnaps-conv4-glyphs"


def refusal(recipe: str, out: Path, changes: Mapping[str, Any]) -> str:
    """What `train` says; it has written nothing."""
    with pytest.raises(ConfigError) as caught:
        train(recipe, out, changes)
    assert not out.exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        (
            PMETA,
            {"method.attention": False, "method.rho_fw": 0.0},
            "method.rho_fw: 0.0 would have no effect, it",
        ),
        (PMETA, {"method.penalty": "none", "method.warmup_fraction": 0.0}, "it needs a penalty"),
        (
            PMETA,
            {"method.inner_steps": 1, "method.multi_step_until": 0.5},
            "it needs inner_steps of 2 or more",
        ),
        (PMETA, {"lite.chunk": 3}, "lite.chunk: 3 would have no effect, it needs lite.h"),
        (
            PMETA,
            {"method.name": "reptile", "method.penalty": "none", "lite.chunk": 3},
            "lite.chunk: 3 would have no effect",
        ),
        (
            PROTONETS,
            {"method.tasks_per_chunk": 1},
            "tasks_per_chunk: 1 would have no effect, protonets does not",
        ),
        (SIMPLE, {"method.film": False, "method.film_penalty": 0.5}, "it needs method.film = true"),
        (
            SIMPLE,
            {"method.film": False, "lite.h": 3},
            "lite.h: 3 would have no effect, it needs method.film = true",
        ),
        (
            SIMPLE,
            {"method.film": False, "lite.control_variate": False},
            "lite.control_variate: false would have no effect",
        ),
        (
            SIMPLE,
            {"method.film": False, "lite.checkpoint": True},
            "lite.checkpoint: true would have no effect",
        ),
    ],
)
def test_changes(recipe: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert message in refusal(recipe, tmp_path / "run", changes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            'name = "maml"\npenalty = "none"\nrho_fw = 0.5',
            "method.rho_fw: 0.5 would have no effect, it needs attention = true",
        ),
        (
            "attention = false\nrho_bw = 0.4",
            "method.rho_bw: 0.4 would have no effect, it needs attention = true",
        ),
        ('penalty = "none"\nwarmup_fraction = 0.7', "method.warmup_fraction: 0.7 would have no effect"),
    ],
)
def test_what_the_users_own_recipe_says(settings: str, message: str, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(f'extends = "{PMETA}"\n[method]\n{settings}\n')
    assert message in refusal(str(own), tmp_path / "run", {})


def test_what_a_recipe_inherits_or_a_change_has_switched_off_is_no_mistake(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        f'extends = "{PMETA}"\n[method]\nrho_fw = 0.5\n[train]\nouter_steps = 1\ntasks_per_step = 1\n'
    )
    assert "method.rho_fw" in stated_in(str(own))
    short = {"train.validation_tasks": 2, "train.test_tasks": 2}
    train(str(own), tmp_path / "run", {**short, "method.name": "maml", "method.penalty": "none"})
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(
    "recipe", [name for name in recipe_names() if "glyphs" in name or "sinusoid" in name]
)
def test_the_recipes_that_come_with_the_package_say_nothing_idle(recipe: str, tmp_path: Path) -> None:
    """They get past that check, and fail at the next one: the run directory is a file."""
    (tmp_path / "run").write_text("")
    needs = recipe == SIMPLE
    with pytest.raises((ConfigError, OSError)) as caught:
        train(recipe, tmp_path / "run")
    assert ("initial_weights" if needs else str(tmp_path / "run")) in str(caught.value)
