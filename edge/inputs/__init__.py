"""Images and arrays become samples here, in the cloud and on the device alike."""

from .arrays import from_arrays, query_from_arrays
from .folders import class_files, read_files
from .read import read_query, read_support
from .samples import QuerySet, SupportSet
from .spec import InputSpec

__all__ = [
    "InputSpec",
    "QuerySet",
    "SupportSet",
    "class_files",
    "from_arrays",
    "query_from_arrays",
    "read_files",
    "read_query",
    "read_support",
]
