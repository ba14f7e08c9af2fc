"""Who does the work of simulated clients."""
