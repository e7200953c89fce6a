// The Python module of the bfloat16 kernels. Tensors are passed as addresses: lth/training has checked their types,
// shapes and layouts (lowering.py, for the built-in networks) and keeps them alive. Only inputs that a kernel cannot
// process are refused here.
#include "bindings.hpp"

#include <vector>

#include "shared/optimizer_names.hpp"
#include "update.hpp"
#include "winograd.hpp"

namespace lth::conv {

namespace {

bool runs() {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    return built() && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#else
    return false;
#endif
}

// A bfloat16 dot product does two multiplications per lane. AMD processors issue as many of them as float
// multiply-adds; Intel processors a quarter (1.3 instead of 5.4 per nanosecond on Emerald Rapids).
bool floats_are_faster() {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    return __builtin_cpu_is("intel");
#else
    return false;
#endif
}

void bind_updates(py::module_& m) {
    py::class_<Update>(m, "Update").def(
        py::init([](const std::string& optimizer, float lr, float decay, float momentum, float beta1, float beta2,
                    float epsilon, float correction1, float correction2) {
            return Update{optimizer_named(optimizer), lr, decay, momentum, beta1, beta2, epsilon, correction1, correction2};
        }));
    m.def("update", [](int64_t parts, const Update& how, int64_t all, uintptr_t gradient, bool narrow, uintptr_t mask,
                       uintptr_t value, uintptr_t first, uintptr_t second, uintptr_t copy) {
        const py::gil_scoped_release release;
        in_parts(parts, all, [&](int64_t, int64_t begin, int64_t count) {
            update(how, count, at<char>(gradient) + begin * (narrow ? 2 : 4), narrow, from(at<uint8_t>(mask), begin),
                   at<float>(value) + begin, from(at<float>(first), begin), from(at<float>(second), begin),
                   from(at<bf16>(copy), begin));
        });
    });
}

#ifdef LTH_SANITIZED
// Write beyond the end of an array, by a kernel: a working sanitizer ends the program here.
void overrun() {
    std::vector<float> value(16), gradient(17);
    update({Optimizer::sgd, 0.1f, 0, 0, 0, 0, 0, 1, 1}, 17, gradient.data(), false, nullptr, value.data(), nullptr, nullptr,
           nullptr);
}
#endif

}  // namespace

}  // namespace lth::conv

PYBIND11_MODULE(_conv, m) {
    using namespace lth::conv;
    m.doc() = "3x3 convolutions and updates in bfloat16.";
    m.def("runs", &runs, "Whether this processor has the instructions.");
    m.def("floats_are_faster", &floats_are_faster, "Whether products of floats are faster here than of bfloat16.");
    bind_convolutions(m);
    bind_matrices(m);
    bind_sparse(m);
    bind_updates(m);
#ifdef LTH_SANITIZED
    m.def("overrun", &overrun);
#endif
}
