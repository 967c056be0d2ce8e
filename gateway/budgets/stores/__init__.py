"""The ledgers: where budgets are kept."""
