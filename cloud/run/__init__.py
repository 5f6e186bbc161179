"""A run from its first outer step to the finished run on disk, and back from there."""
