"""Run directories that are read: what is missing, damaged or no run at all is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from edge_adapt.cloud import ConfigError, TrainedRun, load_run
from safetensors.torch import load_file, save_file

Train = Callable[..., TrainedRun]


def test_an_unfinished_or_foreign_directory_is_no_run(finished: TrainedRun, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no run directory: config\.toml is missing"):
        load_run(tmp_path)
    (tmp_path / "config.toml").write_text((finished.path / "config.toml").read_text())
    with pytest.raises(ConfigError, match=r"is not finished"):
        load_run(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "layers.json"])
def test_a_damaged_run_is_refused(name: str, finished: TrainedRun, tmp_path: Path) -> None:
    for path in finished.path.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes(b"{")
    with pytest.raises(ConfigError, match=r"is damaged"):
        load_run(tmp_path)


def test_a_result_without_its_accuracy_is_named(finished: TrainedRun, tmp_path: Path) -> None:
    shutil.copytree(finished.path, tmp_path / "run")
    result = tmp_path / "run" / "result.json"
    result.write_text(json.dumps({**json.loads(result.read_text()), "test": {}}))
    with pytest.raises(ConfigError, match=r"result\.json is damaged \(accuracy is missing\); train again"):
        load_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("result.json", b"\xff\xfe", r"result\.json is damaged: not text in UTF-8"),
        ("result.json", b"{}", r"result\.json is damaged \(input is missing\)"),
        (
            "result.json",
            b'{"input": 3, "test": {}}',
            r"result\.json is damaged \(expected an object, got 3\)",
        ),
        ("result.json", b'{"input": {}, "test": {}}', r"result\.json is damaged \(manifest input"),
        ("config.toml", b"\xff\xfe", r"config\.toml is damaged: not text in UTF-8"),
        ("layers.json", b"\xff\xfe", r"layers\.json is damaged: not text in UTF-8"),
        ("layers.json", b"[]", r"layers\.json is damaged \(expected 9 rows\)"),
        (
            "layers.json",
            b"[3, 3, 3, 3, 3, 3, 3, 3, 3]",
            r"layers\.json is damaged \(expected an object, got 3\)",
        ),
    ],
)
def test_a_file_of_a_run_that_holds_something_else_is_named(
    name: str, content: bytes, message: str, finished: TrainedRun, tmp_path: Path
) -> None:
    shutil.copytree(finished.path, tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message) as refused:
        load_run(tmp_path / "run")
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("change", ["missing", "shape", "nan"])
def test_a_model_file_that_lacks_or_spoils_a_tensor_is_refused_by_name(
    finished: TrainedRun, tmp_path: Path, change: str
) -> None:
    shutil.copytree(finished.path, tmp_path / "run")
    file = tmp_path / "run" / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.startswith("attention."))
    if change == "missing":
        del tensors[name]
    else:
        tensors[name] = tensors[name][:1] if change == "shape" else torch.full_like(tensors[name], torch.nan)
    save_file({key: value.contiguous() for key, value in tensors.items()}, file)
    with pytest.raises(ConfigError, match=name):
        load_run(tmp_path / "run")
    whole = load_file(finished.path / "model.safetensors")
    save_file({key: value for key, value in whole.items() if key != "alpha"}, file)
    with pytest.raises(ConfigError, match="alpha: expected"):
        load_run(tmp_path / "run")
