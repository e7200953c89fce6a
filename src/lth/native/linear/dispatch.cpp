#include "dispatch.hpp"

#include <stdexcept>

namespace lth {

namespace {

#if defined(__x86_64__) || defined(__i386__)
bool runs_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool runs_avx512() {
    return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#else
bool runs_avx2() { return false; }
bool runs_avx512() { return false; }
#endif

}  // namespace

std::vector<const Kernels*> usable_kernels() {
    std::vector<const Kernels*> usable;
    if (kernels_avx512() && runs_avx512()) usable.push_back(kernels_avx512());
    if (kernels_avx2() && runs_avx2()) usable.push_back(kernels_avx2());
    usable.push_back(kernels_plain());
    return usable;
}

const Kernels& kernels_named(const std::string& name) {
    std::string names;
    for (const Kernels* kernels : usable_kernels()) {
        if (name.empty() || name == kernels->name) return *kernels;
        names += std::string(names.empty() ? "" : ", ") + kernels->name;
    }
    throw std::invalid_argument("isa \"" + name + "\" does not run here; give one of: " + names);
}

}  // namespace lth
