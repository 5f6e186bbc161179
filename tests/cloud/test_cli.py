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


MRML = [
    "--set", "method.name=mrml", "--set", "method.attention=false", "--set", "method.penalty=none",
    "--set", "method.alpha_rate=0.01", "--set",
]  # fmt: skip
KILLED = """
import os, signal
from edge_adapt.cloud.run.progress import Progress
Progress.step = lambda self, state: os.kill(os.getpid(), signal.SIGKILL) if state.step == 5 else None
from edge_adapt.cloud.cli import main
main()
"""


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
        (["run", "RECIPE", "--set", "method.inner_step_size=-1"], "method.inner_step_size must be above 0"),
        (
            ["run", "RECIPE", "--set", "method.inner_step_size=nan"],
            "method.inner_step_size: expected a finite",
        ),
        (["run", "RECIPE", "--set", "method.name=mamal"], "method.name must be one of anil, boil"),
        (
            ["run", "RECIPE", *MRML, 'method.task_layers=["head"]'],
            "method.task_layers: no layer is called 'head'",
        ),
        (
            ["run", "RECIPE", "--set", "task.shots=9"],
            "task.queries (or task.training_queries): 9 + 2 asked for, but class kind",
        ),
        (["run", "RECIPE", "--set", "task.ways=6"], "ways: 6 asked for, but"),
        (["run", "RECIPE", "--resume"], "there is nothing to resume; leave --resume away"),
        (
            ["run", "RECIPE", "--set", "train.initial_weights=nowhere"],
            "train.initial_weights: nowhere cannot be read",
        ),
        (["run", "maml-conv4-omniglot-1shot", "--data", "nowhere"], "nowhere/omniglot28.npz does not exist"),
        (["run", "nowhere.toml"], "recipe file nowhere.toml does not exist"),
        (["eval", "nowhere"], "nowhere is no run directory"),
        (["eval", "RUN", "--data", "mnist=x"], "data: expected NAME=DIR with NAME one of glyphs"),
        (["eval", "RUN", "--data", "folder=nowhere"], "nowhere"),
        (["eval", "RUN", "--data", "glyphs"], "expected"),
    ],
)
def test_mistakes_are_one_line_on_stderr_and_exit_code_2(
    arguments: list[str], message: str, finished: TrainedRun, recipe: Path, stripes: Path, tmp_path: Path
) -> None:
    own = ["--data", str(stripes)] if "RECIPE" in arguments else []
    words = {"RUN": str(finished.path), "RECIPE": str(recipe)}
    out = ["--out", str(tmp_path / "run")] if arguments[0] == "run" else []
    result = meta_train(*(words.get(word, word) for word in arguments), *own, *out)
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
    assert result.stderr.splitlines()[-1].startswith("Error: query_loss is not a number at outer step 2")
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


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux which libraries are loaded")
def test_ctrl_c_while_the_program_starts_is_one_line_and_exit_code_130() -> None:
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv[0] = 'meta-train'; "
        "from edge_adapt.cloud.cli import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out, error) == (130, b"", b"Error: interrupted\n")


def test_a_killed_run_goes_on_from_its_last_validation_and_ends_with_the_same_bytes(
    finished: TrainedRun, recipe: Path, stripes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = ["run", str(recipe), "--data", str(stripes), "--out", str(out), "--threads", "1"]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len((out / "metrics.csv").read_text().splitlines()) == 1 + 2  # steps 2 and 4
    (out / "checkpoint.pt.partial").write_bytes(b"as if it had come while this was being written")
    other = meta_train(*arguments, "--resume", "--set", "task.shots=1")
    assert (other.exit_code, other.stdout) == (2, "")
    assert "started with other settings, so it cannot be resumed: task.shots: 2 -> 1" in other.stderr
    resumed = meta_train(*arguments, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert {path.name for path in out.iterdir()} == {path.name for path in finished.path.iterdir()}
    assert (out / "model.safetensors").read_bytes() == (finished.path / "model.safetensors").read_bytes()


@pytest.mark.parametrize("place", ["file/run", "file", "/proc/run"])
def test_a_place_that_cannot_be_written_to_is_refused(
    place: str, recipe: Path, stripes: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    result = meta_train("run", recipe, "--data", stripes, "--out", tmp_path / place)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: {tmp_path / place} cannot be written to (")
    assert result.stderr.endswith("; choose another --out\n")


@pytest.mark.parametrize("verb", [[], ["run"], ["eval"], ["list"]])
def test_help_ends_with_an_example(verb: list[str]) -> None:
    result = meta_train(*verb, "--help")
    assert result.exit_code == 0
    assert "Example: meta-train" in result.stdout.splitlines()[-1] + result.stdout.splitlines()[-2]
