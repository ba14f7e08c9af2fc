"""What a run that dies loses, and what it costs that it loses nothing."""
