#include "table.inl"
const luce::Kernels luce::kNeon = {"neon", table<float>(), table<double>(), lbfgs()};
