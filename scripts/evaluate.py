"""`rlprm evaluate` for `accelerate launch scripts/evaluate.py --config ...`."""

import sys

from rlprm.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
