"""Stage sweep: short trials of co-evolution under different loss weights and tap layers.

- `space`: what is searched, and where the search begins;
- `trial`: what a trial does in its own process, and `judging`: the two figures it ends with;
- `search`: Ray Tune: Optuna proposes, ASHA stops early, an interrupted search goes on;
- `front`: the Pareto front, the noise between seeds, and the rule that picks `best.yaml`;
- `run`: the stage.
"""

from pipeline.sweep.run import sweep
from pipeline.sweep.space import first_guess

__all__ = ["first_guess", "sweep"]
