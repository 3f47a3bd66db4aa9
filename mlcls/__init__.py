"""mlcls: from a table of labels and a folder of images to a multi-label classifier that can be trusted."""

__version__ = "0.1.0"
