"""Clients per second, beside other engines."""
