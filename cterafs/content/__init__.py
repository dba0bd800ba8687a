"""What is inside files: blocks in memory, read-ahead, and the reader that a handle reads through."""
