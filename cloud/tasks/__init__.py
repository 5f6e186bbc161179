"""Where tasks come from: data sets, their class splits, functions to regress on, and episodes."""

from .dataset import SPLITS, Dataset
from .episodes import Episode, EpisodeBatch, EpisodeSampler, TaskSampler
from .functions import Functions, FunctionSampler
from .sources import describe_datasets, load_dataset, load_functions, loss_of
from .task import Samples, Stored, Task

__all__ = [
    "SPLITS",
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
    "describe_datasets",
    "load_dataset",
    "load_functions",
    "loss_of",
]
