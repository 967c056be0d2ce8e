"""Where the values of features come from: one file for each kind of store."""
