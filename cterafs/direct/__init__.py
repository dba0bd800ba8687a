"""The data plane: lists of blocks from the portal, blocks from the object store.

`client` begins it, and is imported by nobody who only downloads: with all that it needs, that would take 0.15 s more
for each process.
"""
