"""`edge-adapt`: one file per verb; every verb parses, calls one library function and prints."""

from .main import main

__all__ = ["main"]
