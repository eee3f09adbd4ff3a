"""What is published: how it is built, and whether it installs."""
