"""The tests, and the model servers they run against."""
