"""Examines what a gateway needs: folders, ledger, clocks, credentials, backends."""
