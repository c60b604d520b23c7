"""What people see on a terminal, kept as text: one file for each screen, compared to the byte.

A screen that is meant to change: `P2PDIST_WRITE_SCREENS=1 .venv/bin/python -m pytest tests/screens`
writes the files anew (and fails, so that nobody leaves it on); `git diff` then shows what people
will see.
"""
