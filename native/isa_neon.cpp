#include "table.inl"
const luce::Kernels luce::kNeon = {"neon", row_kernels<float>(), row_kernels<double>()};
