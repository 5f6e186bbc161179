"""Train a classifier of all classes; keep every weight but the classifier's own."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from ..errors import ConfigError, TrainingError
from ..files import replace_text
from ..models import build_backbone
from ..parts.assemble import load_split
from ..run.directory import replace_json, replace_tensors, to_csv
from ..run.interrupts import postponed_interrupts
from ..run.loop import all_finite, cosine
from ..settings.typed import to_table
from ..tasks import Dataset
from .images import Split, crops, load, order_of, resized, split
from .settings import Pretraining
from .state import Files, State

MOMENTUM, FLOOR = 0.9, 0.001
SAVE_EVERY = 200
"""Steps between checkpoints."""


@dataclass(frozen=True)
class Pretrained:
    """A finished pre-training: the file of weights, held-out accuracy in [0, 1], seconds of training."""

    weights: Path
    accuracy: float
    seconds: float


def pretrain(
    settings: Pretraining, out: str | PathLike[str], *, resume: bool = False, progress: bool = False
) -> Pretrained:
    """Train a backbone to tell all classes apart, and leave a directory with its weights behind.

    `weights.safetensors` holds every parameter and running statistic but the classifier's (the last Linear),
    for `train.initial_weights`; `result.json`, `metrics.csv` and `config.toml` say how it was made.

    Args:
        settings: what to train.
        out: the directory; must not exist or be empty, unless resuming.
        resume: go on from the checkpoint in `out`, with the same numbers as an uninterrupted run.
        progress: show a progress bar on stderr.

    Raises:
        ConfigError: settings that do not fit the data, or nothing to resume.
        TrainingError: loss or weights are no longer numbers; the last good checkpoint, if there is one, is kept.
        KeyboardInterrupt: after the state was saved.
    """
    dataset = load_split(settings.data, "train")
    if not isinstance(dataset, Dataset):
        raise ConfigError(f"data.name: pre-training classifies images, {settings.data.name} has none")
    learned, held = split(dataset, settings.held_out, settings.seed)
    if len(learned) < settings.batch:
        raise ConfigError(f"batch: {settings.batch} asked for, but there are {len(learned)} training images")
    job = _Job(settings, dataset, learned, held, Files(Path(out)))
    state = job.fresh()
    if resume:
        job.files.resume(settings, state)
    else:
        job.files.begin(settings)
    if not job.files.result.is_file():
        _run(job, state, progress)
    found = job.files.read_result()
    return Pretrained(job.files.weights, found["held_out_accuracy"], found["seconds"])


@dataclass(frozen=True)
class _Job:
    settings: Pretraining
    dataset: Dataset
    learned: Split
    held: Split
    files: Files

    @property
    def size(self) -> int:
        return self.settings.crop or self.dataset.spec.height

    @property
    def epoch_steps(self) -> int:
        return len(self.learned) // self.settings.batch

    @property
    def steps(self) -> int:
        return self.settings.epochs * self.epoch_steps

    def fresh(self) -> State:
        """Untrained weights."""
        given, spec = self.settings, self.dataset.spec
        shape = (spec.channels, self.size, self.size)
        try:
            module = build_backbone(given.backbone, shape, len(self.dataset), given.seed, given.architecture)
        except ValueError as error:
            raise ConfigError(f"backbone: {given.backbone}: {error}") from None
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(
            module.parameters(), given.learning_rate, MOMENTUM, weight_decay=given.weight_decay, nesterov=True
        )
        return State(module, optimizer)

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear over the first epoch, then along half a cosine."""
        warm = min(1.0, (step + 1) / self.epoch_steps)
        return self.settings.learning_rate * warm * cosine(step / self.steps, FLOOR)


def _run(job: _Job, state: State, progress: bool) -> None:
    """Train to the last step, checkpoint on the way, write the results."""
    bar = tqdm(total=job.steps, initial=state.step, unit="step", disable=not progress, dynamic_ncols=True)
    with bar, postponed_interrupts() as interrupted:
        while state.step < job.steps:
            started = time.perf_counter()
            loss = _step(job, state)
            _refuse_nan(job, state, loss)
            state.losses.append(loss)
            epoch_ends = state.step % job.epoch_steps == 0
            if epoch_ends:
                _close_epoch(job, state)
            state.seconds += time.perf_counter() - started
            stops = interrupted()
            if epoch_ends or stops or state.step % SAVE_EVERY == 0:
                job.files.save(job.settings, state)
            if stops:
                raise KeyboardInterrupt
            bar.set_postfix(loss=f"{loss:.3f}", held_out=_last_accuracy(state), refresh=False)
            bar.update(1)
    _finish(job, state)


def _refuse_nan(job: _Job, state: State, loss: float) -> None:
    """Stop before numbers that are none are saved; the loss is that before the step, the weights are after it."""
    if math.isfinite(loss) and all_finite(state.module.state_dict().values()):
        return
    what = "weights are no numbers" if math.isfinite(loss) else f"the loss is {loss}"
    file = job.files.checkpoint
    kept = f"{file} keeps the last good state" if file.is_file() else "nothing was saved"
    raise TrainingError(f"{what} at step {state.step}; {kept}; start again with a lower learning_rate")


def _step(job: _Job, state: State) -> float:
    """One step of SGD; returns the loss."""
    given, epoch, place = job.settings, *divmod(state.step, job.epoch_steps)
    rows = order_of(job.learned, given.seed, epoch)[place * given.batch : (place + 1) * given.batch]
    images, labels = load(job.dataset, rows)
    x = crops(images, job.size, given, np.random.default_rng([given.seed, 2, state.step]))
    for group in state.optimizer.param_groups:
        group["lr"] = job.rate(state.step)
    state.module.train()
    logits = _forward(state.module, x, given.precision)
    loss = F.cross_entropy(logits, labels, label_smoothing=given.label_smoothing)
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    state.optimizer.step()
    state.step += 1
    return float(loss.detach())


def _forward(module: nn.Module, x: Tensor, precision: str) -> Tensor:
    with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        logits: Tensor = module(x.contiguous(memory_format=torch.channels_last))
    return logits.float()


def _close_epoch(job: _Job, state: State) -> None:
    """Measure the held-out images, whole."""
    state.module.eval()
    hits = 0
    with torch.no_grad():
        for first in range(0, len(job.held), job.settings.batch):
            images, labels = load(job.dataset, job.held.rows[first : first + job.settings.batch])
            logits = _forward(state.module, resized(images, job.size), job.settings.precision)
            hits += int((logits.argmax(1) == labels).sum())
    row = {
        "epoch": state.step // job.epoch_steps,
        "loss": sum(state.losses) / len(state.losses),
        "held_out_accuracy": hits / len(job.held),
    }
    state.history.append(row)
    state.losses.clear()


def _last_accuracy(state: State) -> str:
    return f"{state.history[-1]['held_out_accuracy']:.1%}" if state.history else "-"


def _finish(job: _Job, state: State) -> None:
    replace_tensors(job.files.weights, _without_classifier(state.module))
    replace_text(job.files.metrics, to_csv(state.history))
    table = to_table(job.settings)
    replace_json(
        job.files.result,
        {
            "held_out_accuracy": state.history[-1]["held_out_accuracy"],
            "classes": len(job.dataset),
            "images": len(job.learned),
            "seconds": round(state.seconds, 1),
            "threads": torch.get_num_threads(),
            "input": job.dataset.spec.to_json(),
            "settings": {**table, "data": {**table["data"], "root": "none"}},
            "versions": {"python": platform.python_version(), "torch": version("torch")},
        },
    )


def _without_classifier(module: nn.Module) -> Mapping[str, Tensor]:
    """Parameters and floating-point statistics, without the last Linear's, float32 and contiguous."""
    last = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)][-1]
    return {
        name: value.detach().contiguous()
        for name, value in module.state_dict().items()
        if not name.startswith(f"{last}.") and value.is_floating_point()
    }
