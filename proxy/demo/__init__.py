"""The demo: two tiny random models, served by real llama.cpp servers that can sleep."""
