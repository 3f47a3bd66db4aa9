"""Bundles: the folder that holds a finished classifier, and prediction with it."""
