"""Label tables: reading, checking, splitting, and the built-in data. NumPy and pandas; never torch."""
