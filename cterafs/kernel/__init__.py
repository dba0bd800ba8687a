"""The volume as a kernel filesystem, by FUSE."""
