"""Clusters whose engine is Slurm: their jobs, and the model servers that run as steps of these.

Owns what is asked of the engine, what is held there, and the way to a server on a node. What a
model is started for, and what state it is in, is the model's own business.
"""
