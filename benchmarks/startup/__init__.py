"""How long until a run is under way."""
