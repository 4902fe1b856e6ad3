"""What runs many runs: benchmarks; and the top `mtan` command."""
