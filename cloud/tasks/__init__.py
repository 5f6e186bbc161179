"""Where tasks come from: data sets, their class splits, and episodes."""

from .dataset import SPLITS, Dataset
from .episodes import Episode, EpisodeBatch, EpisodeSampler
from .sources import describe_datasets, load_dataset

__all__ = [
    "SPLITS",
    "Dataset",
    "Episode",
    "EpisodeBatch",
    "EpisodeSampler",
    "describe_datasets",
    "load_dataset",
]
