"""How soon a container starts from an image that its host does not have."""
