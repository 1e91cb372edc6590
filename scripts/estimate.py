"""`rlprm estimate` for `accelerate launch scripts/estimate.py --config ...`."""

import sys

from rlprm.cli import main

if __name__ == "__main__":
    sys.exit(main(["estimate", *sys.argv[1:]]))
