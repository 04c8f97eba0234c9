#include "table.inl"
const luce::Kernels luce::kBaseline = {"baseline", table<float>(), table<double>(), lbfgs()};
