"""Decisive lines of the package, each with a mistake that the nearest tests must notice."""
