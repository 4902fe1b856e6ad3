"""The Visual Decathlon: official files, store, batches, training runs, submissions, the score."""
