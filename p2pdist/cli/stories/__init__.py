"""How the story of a blob is asked for and told."""
