"""What the header of each format says, and what decoding the file would take; no pixel is decoded here."""
