"""Recipes run, measured, compared and shown."""
