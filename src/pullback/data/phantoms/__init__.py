"""Phantoms: images that are made, not read."""
