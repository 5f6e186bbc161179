"""What a memory budget may choose: for which methods, measured how, and what a resumed run keeps of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from edge_adapt.cloud import ConfigError
from edge_adapt.cloud.config import RunConfig
from edge_adapt.cloud.lite import LiteConfig
from edge_adapt.cloud.memory.budget import as_chosen, fit_into, probe_steps, shortened
from edge_adapt.cloud.run.directory import read_config
from edge_adapt.cloud.settings.tables import merge, write_toml
from edge_adapt.cloud.settings.typed import to_table

SMALL = {
    "data": {"name": "glyphs"},
    "task": {"shots": 5, "queries": 5},
    "method": {"name": "maml++", "attention": False, "inner_steps": 8, "alpha_rate": 0.001},
    "train": {"outer_steps": 4, "tasks_per_step": 1, "validation_tasks": 2, "test_tasks": 2},
}


def test_a_method_without_lite_is_refused_by_its_own_name() -> None:
    table = {**SMALL, "method": {"name": "reptile", "attention": False}}
    with pytest.raises(ConfigError, match=r"^memory budget: reptile has nothing that could be chosen"):
        fit_into(RunConfig.from_table(table), 10**9)


def test_a_probe_of_one_step_measures_second_order_where_a_run_begins_in_first_order() -> None:
    config = RunConfig.from_table(SMALL)
    begins = replace(config, method=replace(config.method, first_order_until=0.5))
    probed = merge(to_table(begins), shortened(begins, begins.lite, True))
    assert RunConfig.from_table(probed).method == config.method
    assert probed["train"]["outer_steps"] == 1


def test_what_users_modules_print_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "talks.py").write_text(
        "from torch import nn\nprint({'settings': 1})\nprint('{')\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, shape, outputs) -> None:\n"
        "        super().__init__(nn.Conv2d(1, 4, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(196, outputs))\n"
    )
    monkeypatch.chdir(tmp_path)
    config = replace(RunConfig.from_table(SMALL), backbone="talks:Net", backbone_root=str(tmp_path))
    assert probe_steps(config, [config.lite], False)[0] > 10**8


def test_a_resumed_run_keeps_what_was_chosen_and_nothing_else() -> None:
    found = LiteConfig(h=4, query_batch=2, chunk=8, precision="bfloat16")
    assert as_chosen(LiteConfig(h=9, stratified=True), found) == replace(
        found, precision="float32", stratified=True
    )
    whole = LiteConfig(chunk=8)
    assert as_chosen(LiteConfig(h=9, stratified=True, control_variate=False), whole) == whole


@pytest.mark.parametrize(("name", "found"), [("protonets", False), ("maml", None)])
def test_runs_of_learners_from_before_the_control_variate_had_none(
    name: str, found: bool | None, tmp_path: Path
) -> None:
    table = to_table(RunConfig.from_table({**SMALL, "method": {"name": name, "attention": False}}))
    del table["lite"]["control_variate"]
    (tmp_path / "config.toml").write_text(write_toml(table))
    assert read_config(tmp_path).lite.control_variate is found
