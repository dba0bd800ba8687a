"""The CTERA Global File System as a mount and as a Python library."""

__version__ = "0.1.0.dev0"
