// A 3x3 convolution with few surviving weights: only these are computed and updated.
#pragma once

#include <cstdint>

#include "shape.hpp"

namespace lth::conv {

// Surviving weights sorted by row, then place, then column. A row is an output and a column an input; in the backward
// pass they are exchanged and the places mirrored. A place, 3 * i + j, is one of the nine of a 3x3 kernel. ends: for
// each row and place, the end of its weights; columns: the column of each weight.
struct SparseKernels {
    int64_t rows, columns;
    const int64_t* ends;
    const int32_t* column;
};

// Whether there are kernels for images with this `width`.
bool sparse_width(int64_t width);

// x: [image, row, column, channel], y: the same with the kernels' rows as channels; `bias` may be null.
void sparse_convolve(const SparseKernels&, int64_t images, int64_t height, int64_t width, const bf16* x,
                     const float* values, const float* bias, bf16* y);

// The gradients of the weights of rows first to first + count; `value_gradients` contains all weights.
void sparse_convolve_values(const SparseKernels&, int64_t first, int64_t count, int64_t images, int64_t height,
                            int64_t width, const bf16* x, const bf16* y_gradient, float* value_gradients);

}  // namespace lth::conv
