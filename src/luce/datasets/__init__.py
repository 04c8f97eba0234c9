"""Data sets: pictures with known classes, from folders, tables, arrays and names; and how to split them."""

from luce.datasets.dataset import Dataset, Problem
from luce.datasets.folds import folds
from luce.datasets.open import open_dataset
from luce.datasets.split import Split, duplicates, split

__all__ = ["Dataset", "Problem", "Split", "duplicates", "folds", "open_dataset", "split"]
