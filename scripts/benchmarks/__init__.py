"""Measurements of real mounts of an embedded portal, one module for each suite."""
