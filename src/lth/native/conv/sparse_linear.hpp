// A Linear layer with few surviving weights: only these are computed and updated.
#pragma once

#include <cstdint>

#include "shape.hpp"

namespace lth::conv {

constexpr int64_t sparse_block = 1024;  // inputs whose activations for a strip of examples fit into the cache

// Surviving weights sorted by block of inputs, then output, then input. ends: for each block and output, the end of its
// weights; columns: the input of each weight, relative to its block's first.
struct Sparse {
    int64_t inputs, outputs;
    const int64_t* ends;
    const int32_t* columns;
};

// x: [examples, inputs], y: [examples, outputs], and their gradients; `bias` and `x_gradient` may be null.
void sparse_forward(const Sparse&, int64_t examples, const bf16* x, const float* values, const float* bias, bf16* y);
void sparse_backward(const Sparse&, int64_t examples, const bf16* x, const float* values, const bf16* y_gradient,
                     bf16* x_gradient, float* value_gradients);

}  // namespace lth::conv
