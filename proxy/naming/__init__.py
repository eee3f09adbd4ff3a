"""From a request to the model that it names: routes, names, keys, and each API's own forms.

Owns all decisions that need only a request's head and a configuration. Knows nothing of bodies.
"""
