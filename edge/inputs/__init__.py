"""Images and arrays become samples here, in the cloud and on the device alike."""

from .answers import Answers, ClassLabels, Target, Targets
from .array_spec import ArraySpec
from .arrays import from_arrays, query_from_arrays, support_from_arrays
from .folders import class_files, read_files
from .kinds import Spec, spec_from_json
from .read import read_query, read_support
from .samples import QuerySet, SupportSet
from .spec import InputSpec
from .streamed import AnySupport, StreamedSupport, stream_samples

__all__ = [
    "Answers",
    "AnySupport",
    "ArraySpec",
    "ClassLabels",
    "InputSpec",
    "QuerySet",
    "Spec",
    "StreamedSupport",
    "SupportSet",
    "Target",
    "Targets",
    "class_files",
    "from_arrays",
    "query_from_arrays",
    "read_files",
    "read_query",
    "read_support",
    "spec_from_json",
    "stream_samples",
    "support_from_arrays",
]
