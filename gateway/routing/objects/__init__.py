"""Objects that backends keep: who holds them, free calls about them, and work that goes on."""
