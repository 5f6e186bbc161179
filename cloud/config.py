"""What a run is: a frozen dataclass that checks itself; recipes, command line and Python all end here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..edge.errors import UsageError
from ..edge.inputs import InputSpec
from ..edge.units import parse_bytes
from .amortized import LEARNERS
from .errors import ConfigError
from .lite import LiteConfig
from .losses import CROSS_ENTROPY, Loss
from .models import BACKBONES
from .models.own import is_import_path
from .models.timm_models import is_timm
from .outer import METHODS, MethodConfig
from .settings.tables import flatten, merge, nest
from .settings.typed import build, to_table
from .tasks import DECODED, CacheConfig, default_folder, describe_datasets, loss_of

FOLDER, ARRAYS = "folder", "arrays"
SPEC_SETTINGS = ("channels", "size", "mean", "std")
OWN_SPEC: Mapping[str, tuple[str, ...]] = {
    FOLDER: SPEC_SETTINGS,
    ARRAYS: ("mean", "std"),
    **dict.fromkeys(DECODED, ("size",)),
}
"""Which of `SPEC_SETTINGS` may be given; images of a folder need them all."""
LARGEST_SEED = 2**63
DEVICES = ("cpu", "cuda")
BUILT_IN = ("glyphs", "sinusoid")
"""Data sets that no file is read for."""
NUMBERLESS = ("summary", "recipe", "data.root", "data.cache", "data.cache_size", "backbone_root")
"""Settings that may change between the parts of a resumed run."""


@dataclass(frozen=True)
class DataConfig:
    """Where samples come from.

    Attributes:
        name: a data set by name; "folder" for the user's own images, one sub-folder per class; "arrays" for
            the user's own regression tasks, one .npz file each.
        root: the folder itself, or the directory with a named data set's file (none: see `load_dataset`).
        channels: 1 (grey) or 3 (RGB); like `size`, `mean`, `std` only for "folder": named sets bring theirs.
        size: height and width in pixels; also of `DECODED` sets, whose images are resized.
        mean: per channel, on the scale value/255; of "arrays" see `load_arrays`.
        std: per channel, on the scale value/255; of "arrays" see `load_arrays`.
        resize: "box" or "bilinear".
        cache_size: decode images when they are asked for, and keep so much of them on disk, such as "2GB"; none:
            decode all of them at the start, into memory. Of "folder" and `DECODED` sets.
        cache: the folder of this disk cache; none: edge-adapt in $XDG_CACHE_HOME or ~/.cache.
    """

    name: str
    root: str | None = None
    channels: int | None = None
    size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: str = "box"
    cache_size: str | None = None
    cache: str | None = None

    def __post_init__(self) -> None:
        names = known_datasets()
        _check("data.name", self.name in names, f"one of {', '.join(names)}", self.name)
        for name in SPEC_SETTINGS:
            given = getattr(self, name)
            if given is None and self.name == FOLDER:
                raise ConfigError(f"data.{name}: images of a folder need it, got None")
            if given is not None and name not in OWN_SPEC.get(self.name, ()):
                raise ConfigError(f"data.{name}: {self.name} brings its own, got {given!r}")
        if self.resize != "box" and (self.size is None or self.name not in (FOLDER, *DECODED)):
            raise ConfigError(
                f"data.resize: no image of {self.name} is resized, so {self.resize!r} would have no effect"
            )
        if self.name in BUILT_IN and self.root is not None:
            raise ConfigError(f"data.root: {self.name} is built in, so {self.root!r} would have no effect")
        for name in ("cache_size", "cache"):
            if getattr(self, name) is not None and self.name not in (FOLDER, *DECODED):
                raise ConfigError(
                    f"data.{name}: images of {self.name} are not decoded, so it would have no effect"
                )
        if self.cache is not None and self.cache_size is None:
            raise ConfigError(f"data.cache: {self.cache!r} would have no effect without data.cache_size")
        self.disk_cache()
        self.spec()

    def disk_cache(self) -> CacheConfig | None:
        """Where decoded images are kept; None where all are in memory."""
        if self.cache_size is None:
            return None
        try:
            size = parse_bytes(self.cache_size)
        except UsageError as error:
            raise ConfigError(f"data.cache_size: {error}") from None
        return CacheConfig(default_folder() if self.cache is None else Path(self.cache), size)

    def spec(self) -> InputSpec | None:
        """The input spec that these settings make; None where the data bring theirs."""
        own = DECODED.get(self.name, self)
        settings: Any = (own.channels, self.size, self.size, own.mean, own.std, self.resize)
        if None in settings:
            return None
        try:
            return InputSpec(*settings)
        except UsageError as error:
            raise ConfigError(f"data: {error}") from None


@dataclass(frozen=True)
class TaskConfig:
    """What one task is: `ways` classes, `shots` support and `queries` query samples of each.

    A regression task is one function: `ways` is 1.
    """

    ways: int = 5
    shots: int = 1
    queries: int = 15
    training_queries: int | None = None
    """Query samples of each class in a meta-training task; fewer make a step cheaper. None: `queries`."""
    training_shots: int | None = None
    """Support samples of each class in a meta-training task: methods that learn from the support set alone need
    more than they are tested with (Reptile's authors train with 10 for 1-shot tasks). None: `shots`."""
    rotations: bool = False
    """In meta-training, add every class rotated by 90, 180 and 270 degrees as a class of its own."""
    augmentation: float = 0.0
    """In meta-training, move every image at random (turn, shear, scale, shift, bend), this many times the
    strength of the glyphs' own distortion; 0: not at all."""

    def __post_init__(self) -> None:
        _check("task.ways", self.ways >= 1, "at least 1", self.ways)
        _check("task.shots", self.shots >= 1, "at least 1", self.shots)
        _check("task.queries", self.queries >= 1, "at least 1", self.queries)
        for name in ("training_shots", "training_queries"):
            own = getattr(self, name)
            _check(f"task.{name}", own is None or own >= 1, "at least 1, or none", own)
        _check("task.augmentation", self.augmentation >= 0, "at least 0", self.augmentation)

    def check_fits(self, loss: Loss) -> None:
        """Raise ConfigError unless the settings make sense for classifications, or for regressions."""
        if loss is CROSS_ENTROPY:
            return _check("task.ways", self.ways >= 2, "at least 2", self.ways)
        of = "for regression tasks"
        _check("task.ways", self.ways == 1, f"1 {of} (task.shots counts a task's samples)", self.ways)
        _check("task.rotations", not self.rotations, f"false {of}", self.rotations)
        return _check("task.augmentation", self.augmentation == 0, f"0 {of}", self.augmentation)


@dataclass(frozen=True)
class TrainConfig:
    """The outer loop."""

    outer_steps: int = 1000
    tasks_per_step: int = 4
    learning_rate: float = 1e-3
    """Adam's rate at the first step; follows a cosine down to `final_learning_rate`."""
    final_learning_rate: float = 1e-5
    validate_every: int = 250
    """Outer steps between validations (an epoch); the last step is always validated."""
    validation_tasks: int = 600
    test_tasks: int = 600
    device: str = "cpu"
    """Where meta-training computes: "cpu" or "cuda". Samples are decoded on the CPU."""
    initial_weights: str | None = None
    """A safetensors file or a state dict of torch (.pt, .pth) of weights to start from, by name; what it lacks (a new
    classifier) starts at random. Learners without inner steps take norms' statistics too, and need all but a
    classifier. Or the checkpoint.pt of a run of the same method and backbone, such as one that failed: the weights that
    it kept; step sizes begin anew."""

    def __post_init__(self) -> None:
        for name in ("outer_steps", "tasks_per_step", "validate_every"):
            _check(f"train.{name}", getattr(self, name) >= 1, "at least 1", getattr(self, name))
        for name in ("validation_tasks", "test_tasks"):
            _check(f"train.{name}", getattr(self, name) >= 2, "at least 2", getattr(self, name))
        _check("train.device", self.device in DEVICES, f"one of {', '.join(DEVICES)}", self.device)
        _check("train.learning_rate", self.learning_rate > 0, "above 0", self.learning_rate)
        within = 0 <= self.final_learning_rate <= self.learning_rate
        _check("train.final_learning_rate", within, "in [0, train.learning_rate]", self.final_learning_rate)


@dataclass(frozen=True)
class MethodSection(MethodConfig):
    """A method's name and its settings."""

    name: str = "p-meta"

    def __post_init__(self) -> None:
        try:
            super().__post_init__()
        except ValueError as error:
            raise ConfigError(str(error).replace("method setting ", "method.", 1)) from None
        names = (*METHODS, *LEARNERS)
        _check("method.name", self.name in names, f"one of {', '.join(names)}", self.name)


@dataclass(frozen=True)
class RunConfig:
    """A whole run.

    Attributes:
        summary: one line for `meta-train list`.
        recipe: the name it started from.
        seed: of the initial weights and the training tasks; validation and test tasks are always the same.
        backbone: one of `BACKBONES`, the import path of a module of the user's own, "package.module:Name", or
            "timm:NAME".
        architecture: options of the backbone, by name; what is not given keeps the backbone's default, what it
            lacks is refused.
        backbone_root: directory that the user's own module is imported from (none, or missing: the working
            directory); training fills it in.
        lite: how much of a large support set is differentiated, and in which pieces it is computed.

    Raises:
        ConfigError: naming the field, what was expected and what was given.
    """

    data: DataConfig
    summary: str = ""
    recipe: str = ""
    seed: int = 0
    backbone: str = "conv4"
    architecture: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    task: TaskConfig = field(default_factory=TaskConfig)
    method: MethodSection = field(default_factory=MethodSection)
    train: TrainConfig = field(default_factory=TrainConfig)
    lite: LiteConfig = field(default_factory=LiteConfig)
    backbone_root: str | None = None

    def __post_init__(self) -> None:
        _check("seed", 0 <= self.seed < LARGEST_SEED, "at least 0 and below 2^63", self.seed)
        known = self.backbone in BACKBONES or is_import_path(self.backbone) or is_timm(self.backbone)
        expected = f"one of {', '.join(BACKBONES)}, timm:NAME, or your own as package.module:Name"
        _check("backbone", known, expected, self.backbone)
        self.task.check_fits(self.loss)

    @property
    def loss(self) -> Loss:
        """What the tasks are, classifications or regressions."""
        return loss_of(self.data.name)

    @classmethod
    def from_table(cls, table: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> RunConfig:
        """Read a table, with {"train.outer_steps": 10, ...} put over it."""
        return build(cls, merge(table, nest(overrides or {})))


def known_datasets() -> tuple[str, ...]:
    """Names that `data.name` takes."""
    return tuple(name.lower() for name in describe_datasets())


def differences(old: object, new: object) -> list[str]:
    """Settings of two configurations that differ in a way that changes numbers, as "name: old -> new"."""
    before, after = flatten(to_table(old)), flatten(to_table(new))
    names = [name for name in {**before, **after} if name not in NUMBERLESS]
    changed = [name for name in names if before.get(name) != after.get(name)]
    return [f"{name}: {before.get(name)!r} -> {after.get(name)!r}" for name in changed]


def method_settings(section: MethodConfig) -> dict[str, Any]:
    """A method's settings by name, without the name of the method."""
    return {setting.name: getattr(section, setting.name) for setting in fields(MethodConfig)}


def _check(name: str, holds: bool, expected: str, value: object) -> None:
    if not holds:
        raise ConfigError(f"{name} must be {expected}, got {value!r}")
