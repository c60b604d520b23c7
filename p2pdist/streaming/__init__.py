"""Containers run before their layers arrive: the layer index, and files read through it."""
