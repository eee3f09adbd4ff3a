"""Everything that can go wrong with sleep, processes and the machine, made to go wrong."""
