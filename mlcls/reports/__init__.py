"""Reports: the record of a run, the console and the pictures. Sees plain arrays alone, no other room."""
