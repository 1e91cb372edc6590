"""From pools of scored trajectories and search results to records, tables, plots and a summary.

Nothing here loads a model or acts in an environment:

* ``pool``: n candidates for each task, and what scorers said about them
* ``records``: one row of a results table, with its confidence interval
* ``bon``: best-of-N of a pool, sampling until acceptance, bounds, choice of an aggregation, comparisons
* ``majority``, ``baselines``: voting over answers, the best free baseline, the kind of tasks
* ``equal_cost``: searches beside a reference at the same cost
* ``quality``: how well single step scores separate success from failure
* ``compute``: floating-point operations, seconds and memory
* ``candidate_files``: every candidate's scores, and what became of it in a search, as JSON lines
* ``discrimination``: how well scores discriminate between actions of one state
* ``table``, ``plots``, ``summary``: the same records for the terminal, the eye and other programs
"""
