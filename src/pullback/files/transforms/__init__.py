"""Transforms in the formats of all tools."""
