"""The control store: small documents that gateways share, beside the ledger."""
