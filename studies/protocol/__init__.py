"""Reward models compared by the protocol of docs/protocol.md, on the tiny recipes.

    python -m studies.protocol.run --environment babyai --groups primary --seeds 0 1 2 --dry-run
    python -m studies.protocol.run --environment babyai --groups primary --seeds 0 1 2
    python -m studies.protocol.report              # the pages' tables, from the records

* ``environments``: what differs between the environments
* ``arms``: which reward models a group compares, and the searches of the group ``search``
* ``unit``: one (environment, seed, group) from nothing: policy, rollouts, reward models
* ``measure``: what is measured of a reward model, and of what is free
* ``records``: the file of a unit
* ``compare``: statistics over the records of several seeds
"""
