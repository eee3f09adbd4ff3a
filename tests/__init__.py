"""The tests, and the model servers that they use."""
