"""On-disk storage: the journal and snapshots."""
