"""Transforms of every tool."""
