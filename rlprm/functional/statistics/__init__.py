"""Statistics of comparisons: intervals over tasks and over seeds, corrected p values, power.

* ``bootstrap``: intervals over tasks, of one run
* ``seeds``: intervals over seeds, of runs with tasks of their own
* ``crossed``: intervals over seeds and goals, if all seeds share a finite list of goals
* ``holm``: p values of several comparisons
* ``power``: the smallest difference that a number of seeds can detect
"""
