"""The two trainings, of the small network and of semantic heads: batches, objectives, loop and state."""
