"""Data-parallel training: several processes, on one machine or many, that train one run together."""
