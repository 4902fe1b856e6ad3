"""From nothing, from archives or from folders to a store: miniature, download, prepare, inspect."""
