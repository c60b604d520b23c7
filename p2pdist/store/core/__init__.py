"""Decisions of the store: pure."""
