"""Our default and our best settings against the best synchronous rounds; see `__main__`."""
