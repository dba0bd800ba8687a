"""A namespace of any size that takes no disk and hardly any memory: every object is computed from its number.

For measuring. The same shape gives the same objects with the same contents, at every start.
"""
