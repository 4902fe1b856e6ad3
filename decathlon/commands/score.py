"""From a submission to its score: validate, score."""
