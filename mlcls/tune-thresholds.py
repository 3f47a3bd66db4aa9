"""`python -m mlcls.tune-thresholds`: the name people type; the code is in tune_thresholds.py."""

import sys

from mlcls.tune_thresholds import main

if __name__ == "__main__":
    sys.exit(main())
