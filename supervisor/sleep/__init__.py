"""A model's way into sleep and out of it: steps, readiness, proof, and trust.

Owns what a model server is asked and what its answers prove. Knows nothing of who wants it, or of
what follows from a failure.
"""
