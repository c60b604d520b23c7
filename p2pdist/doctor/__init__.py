"""Looks at a host and says what would keep p2pdist from working well, with the fix."""
