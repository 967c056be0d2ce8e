"""The Open Inference Protocol over gRPC: a second listener in front of the same application."""
