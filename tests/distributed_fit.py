"""One process of a distributed fit, for tests/test_distributed.py: `-m torch.distributed.run ... FOLDER CASE`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch.distributed as dist

import luce
from tests.plain_regression import blobs

folder, case = Path(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo")
rank = dist.get_rank()
x, y = blobs(4000, 140, 20) if case == "uneven" else blobs(301, 5, 4)
order = np.argsort(y, kind="stable")  # so that no process sees every class
x, y = x[order], y[order]
mine = slice(0, 90) if rank == 0 else slice(90, None)
x, y = x[mine], y[mine]
if case == "columns" and rank == 1:
    x = x[:, :4]
try:
    tol = 1e-12 if case == "uneven" else 1e-10
    model = luce.SoftmaxRegression(C=2.0, tol=tol, class_weight="balanced").fit_distributed(x, y)
except ValueError as error:
    (folder / f"{rank}.txt").write_text(str(error))
else:
    np.savez(folder / f"{rank}.npz", coef=model.coef_, intercept=model.intercept_, classes=model.classes_)
dist.destroy_process_group()
