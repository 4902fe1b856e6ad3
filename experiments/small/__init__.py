"""Tables of networks trained on a small real Decathlon: what the recipe is worth, all methods, domains that were added."""
