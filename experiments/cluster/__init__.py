"""What all runs by Ray share: Ray itself, started and gone again, and places that all machines reach."""
