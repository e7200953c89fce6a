// The kernels of one instruction set. setup.py compiles this file once for each, with LTH_KERNELS the function's name
// and the compiler's flags for those instructions; where the architecture has none of them, the table is null.
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

void any_sparse_update(SparseRows matrix, Batch batch, Step step, Parameters p) {
    with_optimizer(step.optimizer, [&](auto kind) { sparse_update<kind.value>(matrix, batch, step, p); });
}

void any_dense_update(Panels matrix, const uint32_t* mask, Batch batch, Step step, Parameters p) {
    with_optimizer(step.optimizer, [&](auto kind) { dense_update<kind.value>(matrix, mask, batch, step, p); });
}

void any_bias_update(int32_t units, Batch batch, Step step, Parameters p) {
    with_optimizer(step.optimizer, [&](auto kind) { bias_update<kind.value>(units, batch, step, p); });
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
        any_sparse_update,
        dense_accumulate,
        dense_backpropagate,
        any_dense_update,
        any_bias_update,
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
