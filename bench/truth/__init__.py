"""Whether the simulator tells the truth: its hosts beside real ones with the same links."""
