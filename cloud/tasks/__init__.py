"""Where tasks come from: data sets, their class splits, functions to regress on, and episodes."""

from .dataset import SPLITS, Dataset
from .disk_cache import CacheConfig, default_folder
from .episodes import Episode, EpisodeBatch, EpisodeSampler, TaskSampler
from .functions import Functions, FunctionSampler
from .sources import DECODED, describe_datasets, load_dataset, load_functions, loss_of
from .task import Samples, Stored, Task

__all__ = [
    "DECODED",
    "SPLITS",
    "CacheConfig",
    "Dataset",
    "Episode",
    "EpisodeBatch",
    "EpisodeSampler",
    "FunctionSampler",
    "Functions",
    "Samples",
    "Stored",
    "Task",
    "TaskSampler",
    "default_folder",
    "describe_datasets",
    "load_dataset",
    "load_functions",
    "loss_of",
]
