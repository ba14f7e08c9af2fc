"""What a process needs in which clients' code runs: copies that compute, and bounds."""
