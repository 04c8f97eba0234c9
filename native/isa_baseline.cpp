#include "table.inl"
const luce::Kernels luce::kBaseline = {"baseline", row_kernels<float>(), row_kernels<double>()};
