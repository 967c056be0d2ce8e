"""What labels prove: intervals, drift, audits, and how far labels are trusted."""
