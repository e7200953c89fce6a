// 3x3 convolutions of images so small that many of a kernel's nine places are outside of them: for 4x4 pixels 44 of
// 144, for 2x2 pixels 20 of 36. Only products with existing pixels are computed, directly, from bfloat16 pairs. As
// there are many weights and few pixels, threads share the channels, so sums do not depend on the number of threads.
#pragma once

#include <cstdint>

#include "shape.hpp"

namespace lth::conv {

// Kernels and their gradients are [output, 3, 3, input]; `after` is nothing or relu; height and width are arbitrary.
// `bias` may be null. Computes the outputs first to first + count of `y`, which are whole panels.
void small_forward(const Shape&, int64_t first, int64_t count, const bf16* x, const float* weight, const float* bias,
                   bf16* y);

// Computes the inputs first to first + count of `x_gradient`.
void small_backward_inputs(const Shape&, int64_t first, int64_t count, const float* weight, const bf16* y,
                           const bf16* y_gradient, bf16* x_gradient);

// Computes the gradients of the kernels and biases of the outputs first to first + count.
void small_backward_kernels(const Shape&, int64_t first, int64_t count, const bf16* x, const bf16* y,
                            const bf16* y_gradient, float* weight_gradient, float* bias_gradient);

}  // namespace lth::conv
