"""The keys of the file: what each is called, means, and accepts; and the facts they become.

Owns the frozen classes, presets, recipes, limits, the matrix' language and what the words of a
command say. Knows nothing of where a value came from, or of keys that must fit together.
"""
