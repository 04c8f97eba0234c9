"""Maps: one function of the family on any array there is.

map.py takes NumPy arrays to the native kernels and all others to foreign.py: there arrays of the array API are
worked on by the formulas of formulas.py, torch tensors by the operators of operators.py.
"""

from luce.maps.map import ARGMAX, MAPS, SERIAL, Map, apply, elementwise, inverse_temperature

__all__ = ["ARGMAX", "MAPS", "SERIAL", "Map", "apply", "elementwise", "inverse_temperature"]
