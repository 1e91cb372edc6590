"""`rlprm probe-actions` for `accelerate launch scripts/probe_actions.py --config ...`."""

import sys

from rlprm.cli import main

if __name__ == "__main__":
    sys.exit(main(["probe-actions", *sys.argv[1:]]))
