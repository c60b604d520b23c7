"""What a decision costs: the cores of one host alone, in steady state."""
