"""Features from outside: values of an entity, looked up while its request waits."""
