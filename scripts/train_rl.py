"""`rlprm train-rl` for `accelerate launch scripts/train_rl.py --config ...`."""

import sys

from rlprm.cli import main

if __name__ == "__main__":
    sys.exit(main(["train-rl", *sys.argv[1:]]))
