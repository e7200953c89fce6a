// A 3x3 convolution of which few weights survive: what is computed and updated are these alone.
#pragma once

#include <cstdint>

#include "shape.hpp"

namespace lth::conv {

// Surviving weights by row, then place, then column, where a row is an output and a column an input; or, for the way
// back, the other way round with the places mirrored. A place, 3 * i + j, is one of the nine of a 3x3 kernel. ends: for
// each row and place, one after the other, where its weights end; columns: of each weight.
struct SparseKernels {
    int64_t rows, columns;
    const int64_t* ends;
    const int32_t* column;
};

// Images of `width` pixels a row that there are kernels for.
bool sparse_width(int64_t width);

// x: [image, row, column, channel], y: the same of the kernels' rows; `bias` may be null.
void sparse_convolve(const SparseKernels&, int64_t images, int64_t height, int64_t width, const bf16* x,
                     const float* values, const float* bias, bf16* y);

// The gradients of the values of rows first to first + count; `value_gradients` is of all values.
void sparse_convolve_values(const SparseKernels&, int64_t first, int64_t count, int64_t images, int64_t height,
                            int64_t width, const bf16* x, const bf16* y_gradient, float* value_gradients);

}  // namespace lth::conv
