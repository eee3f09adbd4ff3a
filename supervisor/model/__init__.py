"""One model server: the task that owns its process, what is wanted of it, and who uses it.

Owns a model's life from start to end. Knows nothing of other models.
"""
