"""Pure mathematics: no I/O, no models, and no imports of this package but the errors.

Shape suffixes: ``B`` trajectories of the batch, ``T`` steps of the widest of
them, ``T1`` = T + 1 values (``v_0`` of the prompt in front), ``N`` scored
candidates of one task, ``K`` tasks. Rows are padded on the right.

* ``returns``: TD residuals, GAE, TD-GAE labels
* ``ppo``: clipped policy and value loss, truncated importance weights
* ``kl``: estimators of the divergence from a reference, as values and as a loss
* ``entropy``: of next-token distributions, from logits
* ``moments``: mean and deviation from sums that add up over processes; whitening, explained variance
* ``groups``: deviations from the mean of one's group
* ``tokens``: between numbers of steps and numbers of their tokens
* ``losses``: promise and progress loss, as sums
* ``activation``: from the scalar head's output to a value
* ``masking``: which entries of a padded batch exist
* ``aggregation``: step scores to one trajectory score
* ``best_of_n``: exact best-of-k and pass@k from one pool
* ``statistics``: intervals over tasks, seeds and goals; corrected p values; power
* ``metrics``: AUC, calibration, rank correlation
"""
