"""HTTP to backends: connections, pools, proxies, load balancing."""
