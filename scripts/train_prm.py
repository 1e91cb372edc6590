"""`rlprm train-prm` for `accelerate launch scripts/train_prm.py --config ...`."""

import sys

from rlprm.cli import main

if __name__ == "__main__":
    sys.exit(main(["train-prm", *sys.argv[1:]]))
