"""The chart: rendered, checked against the schemas of Kubernetes, and understood by the daemons."""
