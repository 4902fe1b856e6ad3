"""`mtan experiments compare`: runs side by side, over seeds, beside what was published."""
