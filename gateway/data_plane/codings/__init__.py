"""Content codings between clients and the gateway: requests decoded, replies compressed."""
