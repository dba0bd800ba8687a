"""Downloads of a mount in a process of their own, whose interpreter is not the one that serves."""
