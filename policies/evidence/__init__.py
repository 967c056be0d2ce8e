"""What labels prove: intervals, drift, audits, and how far they are believed."""
