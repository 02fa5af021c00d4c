"""Examination of headers."""
