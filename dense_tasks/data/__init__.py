"""Roots in the authors' npy layout: checked, read, augmented; and made from the official files."""
