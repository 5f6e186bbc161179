"""Images and arrays become samples here, in the cloud and on the device alike."""

from .answers import Answers, ClassLabels, Target, Targets
from .array_spec import ArraySpec
from .arrays import from_arrays, query_from_arrays, support_from_arrays
from .folders import class_files, read_files
from .held import LABEL_BYTES, NAME_BYTES
from .kinds import Spec, spec_from_json
from .read import read_query, read_support
from .samples import QuerySet, SupportSet
from .spec import InputSpec
from .streamed import AnySupport, StreamedSupport, expected_decode_bytes, expected_seconds, stream_samples

__all__ = [
    "LABEL_BYTES",
    "NAME_BYTES",
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
    "expected_decode_bytes",
    "expected_seconds",
    "from_arrays",
    "query_from_arrays",
    "read_files",
    "read_query",
    "read_support",
    "spec_from_json",
    "stream_samples",
    "support_from_arrays",
]
