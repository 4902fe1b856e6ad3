"""From official files to an Arrow store."""
