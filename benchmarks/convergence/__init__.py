"""How soon rules and schedulers reach a target."""
