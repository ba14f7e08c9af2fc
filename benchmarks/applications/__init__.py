"""How far a federation gets in each application."""
