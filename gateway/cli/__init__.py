"""The command line: `tollway COMMAND`."""
