"""`rlprm collect` for `accelerate launch scripts/collect.py --config ...`."""

import sys

from rlprm.cli import main

if __name__ == "__main__":
    sys.exit(main(["collect", *sys.argv[1:]]))
