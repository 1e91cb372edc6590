"""What a run did, as one page that opens without a network: tables, curves, settings, and every trajectory.

``finding`` says what a folder holds. ``sources`` reads its trajectories for the viewer, and ``packing`` makes
them small. ``sections`` has the parts of the page, ``page`` writes the file, and ``server`` shows the page on
this machine alone. The page's own style and script lie in ``assets``. All text that a model, an environment
or a file wrote is data of the page, never markup.
"""
