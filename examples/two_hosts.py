"""One process of a distributed softmax regression: it holds its share of scikit-learn's digits.

Started by `examples/two_hosts.sh`, or on one machine by `torchrun --nproc-per-node 2 examples/two_hosts.py`.
"""

from __future__ import annotations

import numpy as np
import torch.distributed as dist
from sklearn.datasets import load_digits

import luce

TOL = 1e-13  # so that what differs between two fits is not what each leaves unsolved

x, y = load_digits(return_X_y=True)
x = (x / 16).astype(np.float64)
dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()
mine = slice(rank * len(x) // size, (rank + 1) * len(x) // size)
model = luce.SoftmaxRegression(tol=TOL).fit_distributed(x[mine], y[mine])
print(f"process {rank}: {len(x[mine])} rows, {model.n_passes_} passes, gap {model.certificate_.gap:.1e}", flush=True)
if rank == 0:
    alone = luce.SoftmaxRegression(tol=TOL).fit(x, y)
    coef = np.abs(alone.coef_ - model.coef_).max()
    probability = np.abs(alone.predict_proba(x) - model.predict_proba(x)).max()
    print(f"largest difference to a fit on all rows: {coef:.1e} (coef_), {probability:.1e} (probabilities)", flush=True)
dist.destroy_process_group()
