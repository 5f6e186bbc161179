"""`meta-train`: what it prints, where, and its exit codes."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from edge_adapt.cloud import TrainedRun, evaluate
from edge_adapt.cloud.cli import main
from edge_adapt.cloud.models import BACKBONES
from edge_adapt.cloud.outer import METHODS
from edge_adapt.cloud.recipes import recipe_names

PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from edge_adapt.cloud.cli import main; main()"
)


def meta_train(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_list_names_methods_backbones_data_sets_and_recipes() -> None:
    result = meta_train("list")
    assert result.exit_code == 0
    words = set(result.stdout.split())
    assert {*METHODS, *BACKBONES, "glyphs", "omniglot", "folder", *recipe_names()} <= words
    for name, method in METHODS.items():
        (line,) = [line for line in result.stdout.splitlines() if line.split()[:1] == [name]]
        assert line.endswith(f"{method.summary} ({method.paper})")


def test_run_prints_one_line_and_leaves_a_run_that_eval_scores_as_one_object(
    recipe: Path, stripes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = meta_train("run", recipe, "--data", stripes, "--out", out, "--set", "train.outer_steps=2")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"{out}: ")
    assert len(result.stdout.splitlines()) == 1
    assert "step 2: validation accuracy" in result.stderr
    scored = meta_train("eval", out, "--tasks", 6, "--json")
    assert scored.exit_code == 0
    score, stored = json.loads(scored.stdout), json.loads((out / "result.json").read_text())["test"]
    assert score == stored
    text = meta_train("eval", out, "--tasks", 6).stdout
    assert text.startswith(f"{score['accuracy']:.2%} ± {score['ci95']:.2%} on 6 test tasks")


def test_eval_takes_another_data_set_by_name_and_folder(finished: TrainedRun, stripes: Path) -> None:
    result = meta_train("eval", finished.path, "--tasks", 4, "--json", "--data", f"folder={stripes}")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["accuracy"] == evaluate(finished, tasks=4).accuracy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "pmeta"], "no recipe is called 'pmeta'"),
        (["run", "pmeta-conv4-glyphs", "--set", "train.steps=3"], "train.steps is no setting"),
        (
            ["run", "pmeta-conv4-glyphs", "--set", "method.inner_steps=0"],
            "inner_steps must be at least 1, got 0",
        ),
        (["run", "pmeta-conv4-glyphs", "--set", "nonsense"], "--set expects key=value"),
        (["run", "pmeta-conv4-folder"], "data.root: which folder of images"),
        (["eval", "nowhere"], "nowhere is no run directory"),
        (["eval", "RUN", "--data", "mnist=x"], "data: expected NAME=DIR with NAME one of glyphs"),
        (["eval", "RUN", "--data", "folder=nowhere"], "nowhere"),
        (["eval", "RUN", "--data", "glyphs"], "expected"),
    ],
)
def test_mistakes_are_one_line_on_stderr_and_exit_code_2(
    arguments: list[str], message: str, finished: TrainedRun, tmp_path: Path
) -> None:
    arguments = [str(finished.path) if word == "RUN" else word for word in arguments]
    out = ["--out", str(tmp_path / "run")] if arguments[0] == "run" else []
    result = meta_train(*arguments, *out)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_failed_training_is_one_line_and_exit_code_1(recipe: Path, stripes: Path, tmp_path: Path) -> None:
    broken = ["--set", "train.learning_rate=1e30"]
    result = meta_train("run", recipe, "--data", stripes, "--out", tmp_path / "run", *broken)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(
        "Error: loss or gradient is not a number at outer step 2"
    )
    assert (tmp_path / "run" / "checkpoint.pt").exists()


def test_ctrl_c_saves_prints_how_to_resume_and_exits_130(recipe: Path, stripes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["run", str(recipe), "--data", str(stripes), "--out", str(out), "--threads", "1"]
    settings = ["--set", "train.outer_steps=400", "--set", "train.validation_tasks=2"]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments, *settings], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (out / "metrics.csv").exists() or (out / "metrics.csv").stat().st_size == 0:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    last = stderr.splitlines()[-1]
    assert last.startswith("interrupted; the state is saved. Go on with: meta-train run ")
    command = shlex.split(last.split("Go on with: ")[1])
    assert command == ["meta-train", *arguments, *settings, "--resume"]
    assert not list(out.glob("*.partial"))
    assert meta_train(*command[1:-1]).exit_code == 2  # without --resume: the directory is not empty


@pytest.mark.parametrize("verb", [[], ["run"], ["eval"], ["list"]])
def test_help_ends_with_an_example(verb: list[str]) -> None:
    result = meta_train(*verb, "--help")
    assert result.exit_code == 0
    assert "Example: meta-train" in result.stdout.splitlines()[-1] + result.stdout.splitlines()[-2]
