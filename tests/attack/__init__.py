"""Hostile inputs against a daemon of its own: how long others wait, what it costs, what is said."""
