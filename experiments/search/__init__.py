"""Searches over configurations with Ray Tune; the training is that of `mtan decathlon train` and `mtan dense train`."""
