// The kernels of one instruction set. setup.py compiles this file once for each, with LTH_KERNELS as the function's
// name and the compiler flags for those instructions. If the architecture lacks them, the table is null.
#include "kernels.hpp"

#define LTH_AVAILABLE_kernels_plain 1
#if defined(__AVX2__) && defined(__FMA__)
#define LTH_AVAILABLE_kernels_avx2 1
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__)
#define LTH_AVAILABLE_kernels_avx512 1
#endif
#define LTH_JOIN(a, b) a##b
#define LTH_AVAILABLE(name) LTH_JOIN(LTH_AVAILABLE_, name)

#if LTH_AVAILABLE(LTH_KERNELS)

#include "dense_kernels.hpp"
#include "elementwise.hpp"
#include "gather.hpp"
#include "sparse_kernels.hpp"

namespace {

void sparse_update(SparseRows matrix, Batch batch, Step step, Parameters p) {
    with_update(step, p, [&](auto update) { sparse_gradients(matrix, batch, update); });
}

void dense_update(Panels matrix, const uint32_t* mask, Batch batch, Step step, Parameters p) {
    with_update(step, p, [&](auto update) { dense_gradients(matrix, mask, batch, update); });
}

void bias_update(int32_t units, Batch batch, Step step, Parameters p) {
    with_update(step, p, [&](auto update) { bias_gradients(units, batch, update); });
}

void sparse_gradient(SparseRows matrix, Batch batch, float* gradient) {
    sparse_gradients(matrix, batch, Keep{gradient});
}

void dense_gradient(Panels matrix, const uint32_t* mask, Batch batch, float* gradient) {
    dense_gradients(matrix, mask, batch, Keep{gradient});
}

void bias_gradient(int32_t units, Batch batch, float* gradient) { bias_gradients(units, batch, Keep{gradient}); }

void step_along(int64_t places, const float* gradient, float scale, Step step, Parameters p) {
    with_update(step, p, [&](auto update) {
        for (int64_t at = 0; at < places; at += W) update(at, load(gradient + at) * scale);
    });
}

#if defined(__AVX512F__)
constexpr const char* name = "avx512";
#elif defined(__AVX2__)
constexpr const char* name = "avx2";
#else
constexpr const char* name = "plain";
#endif

}  // namespace

const lth::Kernels* lth::LTH_KERNELS() {
    static constexpr Kernels table = {
        name,
        lanes,
        row_tile,
        gather_bytes,
        gather_floats,
        natural_bytes,
        natural_floats,
        natural_strip,
        sparse_accumulate,
        sparse_update,
        dense_accumulate,
        dense_backpropagate,
        dense_update,
        bias_update,
        sparse_gradient,
        dense_gradient,
        bias_gradient,
        step_along,
        fill,
        activate,
        deactivate,
        softmax,
    };
    return &table;
}

#else

const lth::Kernels* lth::LTH_KERNELS() { return nullptr; }

#endif
