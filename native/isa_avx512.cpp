#include "table.inl"
const luce::Kernels luce::kAvx512 = {"avx512", row_kernels<float>(), row_kernels<double>()};
