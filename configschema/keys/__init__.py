"""The keys of the file: their names, meanings and values, and the frozen classes that they become.

Owns the frozen classes, presets, recipes, limits, and what the words of a command say. It does not
know where a value came from, or which keys must fit together.
"""
