"""How releases are built, and whether they install."""
