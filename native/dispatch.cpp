// One choice of instruction set per process.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernels.hpp"

namespace luce {
namespace {

struct Tables {
  const Kernels* list[4];
  std::size_t count = 0;

  Tables() {
#ifdef LUCE_HAVE_AVX512
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
      list[count++] = &kAvx512;
#endif
#ifdef LUCE_HAVE_AVX2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) list[count++] = &kAvx2;
#endif
#ifdef LUCE_HAVE_NEON
    list[count++] = &kNeon;
#endif
    list[count++] = &kBaseline;
  }
};

const Tables& tables() {
  static const Tables instance;
  return instance;
}

const Kernels& choose() {
  const char* wanted = std::getenv("LUCE_ISA");
  if (wanted == nullptr || *wanted == '\0') return *tables().list[0];
  std::string names;
  for (std::size_t i = 0; i < tables().count; ++i) {
    if (std::string(wanted) == tables().list[i]->name) return *tables().list[i];
    names += std::string(i ? ", " : "") + tables().list[i]->name;
  }
  throw std::runtime_error("LUCE_ISA is '" + std::string(wanted) + "'; this machine runs: " + names);
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

const Kernels* const* available(std::size_t* count) {
  *count = tables().count;
  return tables().list;
}

}  // namespace luce
