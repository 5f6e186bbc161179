"""Initial weights for meta-training: ordinary classification of mini-ImageNet's training classes.

    python benchmarks/pretrain.py conv4 -o conv4.safetensors --steps 1600 --crop 64 --batch 64 --bfloat16

One thread; random crops at the images' own scale and mirror images. The classifier is thrown away: the file
holds every other weight, for `meta-train run --set train.initial_weights=FILE`. Settings and minutes lie beside
it, as .json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from edge_adapt.cloud.memory.allocator import keep_freed_memory
from edge_adapt.cloud.models import BACKBONES, build_backbone
from edge_adapt.cloud.run.loop import cosine
from edge_adapt.cloud.tasks import Dataset, load_dataset
from edge_adapt.edge.inputs import InputSpec
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
LEARNING_RATE, FLOOR, SMOOTHING = 1e-3, 0.01, 0.1
MARGIN = 4
REPORT_EVERY = 100


@dataclass(frozen=True)
class Settings:
    """What the weights depend on: `steps` of Adam on `batch` windows of `crop` pixels; bfloat16 forward or not."""

    backbone: str
    steps: int
    crop: int = 84
    batch: int = 64
    bfloat16: bool = False
    seed: int = 0


def pretrain(settings: Settings, out: Path, data: Path) -> None:
    """Train; write the weights without the classifier's, then settings and minutes as .json beside them."""
    keep_freed_memory()
    started = time.perf_counter()
    dataset = load_dataset("miniimagenet", "train", data_dir=data)
    crop = settings.crop
    module = build_backbone(settings.backbone, (3, crop, crop), len(dataset), settings.seed)
    optimizer = torch.optim.Adam(module.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step / settings.steps, FLOOR))
    for step, (x, y) in enumerate(batches(dataset, settings), start=1):
        loss, accuracy = train_step(module, optimizer, x, y, settings.bfloat16)
        schedule.step()
        if step % REPORT_EVERY == 0:
            print(f"{step}/{settings.steps}: loss {loss:.3f}, accuracy {accuracy:.1%}", flush=True)
    minutes = round((time.perf_counter() - started) / 60, 1)
    kept = {name: value for name, value in module.state_dict().items() if not name.startswith("fc.")}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps({**asdict(settings), "minutes": minutes}) + "\n")
    partial = out.with_suffix(".partial")
    save_file(kept, partial)
    partial.replace(out)


def batches(dataset: Dataset, settings: Settings) -> Iterator[tuple[Tensor, Tensor]]:
    """Random images of all classes, augmented and preprocessed, with their classes' numbers."""
    images = np.concatenate(dataset.classes)
    labels = np.repeat(np.arange(len(dataset)), [len(each) for each in dataset.classes])
    rng = np.random.default_rng(settings.seed)
    for _ in range(settings.steps):
        rows = rng.integers(len(images), size=settings.batch)
        x = augmented(images[rows], settings.crop, dataset.spec, rng)
        yield torch.from_numpy(x), torch.from_numpy(labels[rows])


def augmented(
    pixels: NDArray[np.uint8], crop: int, spec: InputSpec, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Cut a window of crop x crop anywhere (a little over the edge, which repeats) and mirror half of them."""
    around = (MARGIN, MARGIN)
    padded = np.pad(pixels, ((0, 0), around, around, (0, 0)), mode="edge")
    corners = rng.integers(padded.shape[1] - crop + 1, size=(len(pixels), 2))
    mirror = rng.random(len(pixels)) < 0.5
    cut = [image[y : y + crop, x : x + crop] for image, (y, x) in zip(padded, corners, strict=True)]
    turned = [image[:, ::-1] if flip else image for image, flip in zip(cut, mirror, strict=True)]
    return InputSpec(spec.channels, crop, crop, spec.mean, spec.std).preprocess(np.stack(turned))


def train_step(
    module: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, bfloat16: bool
) -> tuple[float, float]:
    """One step of the optimizer; return loss and accuracy on the batch."""
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits = module(x)
    loss = nn.functional.cross_entropy(logits.float(), y, label_smoothing=SMOOTHING)
    loss.backward()
    optimizer.step()
    return float(loss.detach()), float((logits.argmax(1) == y).double().mean())


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("backbone", choices=[*BACKBONES])
    parser.add_argument("-o", "--out", type=Path, required=True, help="the safetensors file to write")
    parser.add_argument("--data", type=Path, default=None, help="directory of miniimagenet84_*.npz")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--crop", type=int, default=84, help="pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--bfloat16", action="store_true", help="compute forward in half the bits")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = args.data or Path(os.environ.get("EDGE_ADAPT_DATA", ROOT.parent / "shared" / "data"))
    pretrain(Settings(args.backbone, args.steps, args.crop, args.batch, args.bfloat16), args.out, data)


if __name__ == "__main__":
    main()
