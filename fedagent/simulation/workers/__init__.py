"""What does the work of simulated clients."""
