"""The demo: two tiny models, and a real llama.cpp server that can sleep.

Owns what ``llamadoze demo`` serves. The daemon needs nothing of it.
"""
