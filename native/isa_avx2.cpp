#include "table.inl"
const luce::Kernels luce::kAvx2 = {"avx2", table<float>(), table<double>(), lbfgs()};
