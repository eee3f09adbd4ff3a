"""What docs/deploy and the guides show, checked with the programs that they are for."""
