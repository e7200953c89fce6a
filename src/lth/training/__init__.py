"""How a network is trained: schedule, batches, the engines, and the training loop."""
