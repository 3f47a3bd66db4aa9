"""Learning: losses, optimizers, schedules, epochs and early stopping."""
