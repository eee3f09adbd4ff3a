"""Models as steps of a real Slurm: three nodes in namespaces of this machine."""
