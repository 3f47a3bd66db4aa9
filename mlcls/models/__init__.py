"""Models: a timm backbone with a head, freezing by stages, and the forward pass."""
