"""Where a configuration comes from besides its own file."""
