#include "table.inl"
const luce::Kernels luce::kAvx512 = {"avx512", table<float>(), table<double>(), lbfgs()};
