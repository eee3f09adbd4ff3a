"""HTTP in and out, the command line, and the root that opens the nurseries."""
