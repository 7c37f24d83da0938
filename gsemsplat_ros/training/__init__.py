"""Synthetic furnished rooms, losses and the training of the small network."""
