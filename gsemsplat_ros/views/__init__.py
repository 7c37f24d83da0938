"""Images with their cameras, and how they become pairs (NumPy only)."""
