"""`mtan experiments sweep`: a table of trainings, methods x weightings x seeds, as one Ray job."""
