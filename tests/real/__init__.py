"""Against real model servers: opt-in, as they are large or need hardware."""
