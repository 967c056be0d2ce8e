"""Bodies that are no JSON documents: forms, and files."""
