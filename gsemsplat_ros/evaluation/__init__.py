"""Published protocols, evaluations on data sets, and benchmarks."""
