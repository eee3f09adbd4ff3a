"""The examples in docs/deploy and in the guides, checked with the programs that they are for."""
