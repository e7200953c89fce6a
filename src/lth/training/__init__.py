"""How a network is trained: schedule, batches, the torch engine, and the loop around any engine."""
