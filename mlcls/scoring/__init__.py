"""Scoring: predictions, metrics and thresholds, over known labels alone. NumPy; no torch, no pandas."""
