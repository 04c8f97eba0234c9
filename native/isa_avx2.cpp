#include "table.inl"
const luce::Kernels luce::kAvx2 = {"avx2", row_kernels<float>(), row_kernels<double>()};
