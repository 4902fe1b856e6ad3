"""Runs: train, evaluate, submit, import-weights, presets."""
