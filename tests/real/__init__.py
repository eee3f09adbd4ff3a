"""Tests against real model servers; they are opt-in, as the servers are large or need hardware."""
