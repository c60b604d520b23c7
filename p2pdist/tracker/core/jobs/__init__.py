"""Prewarm jobs: who is to have which images, who has them, and what to do about the rest. Pure."""
