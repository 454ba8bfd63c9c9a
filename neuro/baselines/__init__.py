"""The rivals of a spiking network: how each is built and trained."""
