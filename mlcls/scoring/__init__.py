"""Scoring: predictions, metrics and thresholds, over known labels alone. NumPy and scikit-learn; no torch, no pandas."""
