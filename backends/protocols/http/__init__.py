"""HTTP of any kind: any method, body and reply, with presets for the servers that are known."""
