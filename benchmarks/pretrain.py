"""Initial weights for meta-training: ordinary classification of a data set's training classes.

    python benchmarks/pretrain.py conv4 -o conv4.safetensors --steps 2500 --crop 84 --batch 64

One thread; random crops at the images' own scale and mirror images. The classifier is thrown away: the file
holds every other weight, for `meta-train run --set train.initial_weights=FILE`.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
from edge_adapt.cloud.loop import cosine
from edge_adapt.cloud.memory import keep_freed_memory
from edge_adapt.cloud.models import build_backbone
from edge_adapt.cloud.tasks import load_dataset
from edge_adapt.edge.inputs import InputSpec
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
LEARNING_RATE, FLOOR, SMOOTHING = 1e-3, 0.01, 0.1
REPORT_EVERY = 100


def pretrain(
    backbone: str, out: Path, data: Path, *, steps: int, crop: int, batch: int, bfloat16: bool, seed: int = 0
) -> float:
    """Train for `steps` of Adam; write the weights without the classifier's; return the minutes it took."""
    keep_freed_memory()
    started = time.perf_counter()
    dataset = load_dataset("miniimagenet", "train", data_dir=data)
    images, classes = np.concatenate(dataset.classes), len(dataset)
    labels = np.repeat(np.arange(classes), [len(each) for each in dataset.classes])
    rng = np.random.default_rng(seed)
    module = build_backbone(backbone, (3, crop, crop), classes, seed)
    optimizer = torch.optim.Adam(module.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step / steps, FLOOR))
    for step in range(steps):
        rows = rng.integers(len(images), size=batch)
        x = torch.from_numpy(augmented(images[rows], crop, dataset.spec, rng))
        loss, accuracy = train_step(module, optimizer, x, torch.from_numpy(labels[rows]), bfloat16)
        schedule.step()
        if (step + 1) % REPORT_EVERY == 0:
            took = (time.perf_counter() - started) / 60
            print(f"{step + 1}/{steps}: loss {loss:.3f}, accuracy {accuracy:.1%}, {took:.1f} min", flush=True)
    kept = {name: value for name, value in module.state_dict().items() if not name.startswith("fc.")}
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".partial")
    save_file(kept, partial)
    partial.replace(out)
    return (time.perf_counter() - started) / 60


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


def augmented(
    pixels: NDArray[np.uint8], crop: int, spec: InputSpec, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Cut a random window of crop x crop (up to 4 pixels over the edge, which repeats) and mirror half of them."""
    margin = 4
    padded = np.pad(pixels, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="edge")
    corners = rng.integers(padded.shape[1] - crop + 1, size=(len(pixels), 2))
    cut = [image[y : y + crop, x : x + crop] for image, (y, x) in zip(padded, corners, strict=True)]
    mirrored = [
        image[:, ::-1] if flip else image for image, flip in zip(cut, rng.random(len(cut)) < 0.5, strict=True)
    ]
    own = InputSpec(spec.channels, crop, crop, spec.mean, spec.std)
    return own.preprocess(np.stack(mirrored))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("backbone")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the safetensors file to write")
    parser.add_argument("--data", type=Path, default=None, help="directory of miniimagenet84_*.npz")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--crop", type=int, default=84, help="pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--bfloat16", action="store_true", help="half the bits forward, where the CPU has them"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = args.data or Path(os.environ.get("EDGE_ADAPT_DATA", ROOT.parent / "shared" / "data"))
    minutes = pretrain(
        args.backbone,
        args.out,
        data,
        steps=args.steps,
        crop=args.crop,
        batch=args.batch,
        bfloat16=args.bfloat16,
    )
    print(f"{args.out}: {minutes:.1f} min")


if __name__ == "__main__":
    main()
