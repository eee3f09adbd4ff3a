"""The demo: two tiny models and a real llama.cpp server that can sleep.

Owns what ``llamadoze demo`` serves, and nothing that the daemon needs.
"""
