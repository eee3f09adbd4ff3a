"""Clusters whose engine is Slurm: their jobs, and the model servers that run as steps of jobs.

Owns the questions to Slurm, the jobs that are held, and the way to a server on a node. The model
decides what it is started for and what state it is in.
"""
