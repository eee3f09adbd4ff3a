"""The keys of the file: what each is called, means, and accepts; and the facts they become.

Owns the frozen classes, presets, recipes, limits and the matrix' language. Knows nothing of where a
value came from, or of keys that must fit together.
"""
