"""Workflows: compose the rooms; the only code besides the commands that sees a Recipe."""
