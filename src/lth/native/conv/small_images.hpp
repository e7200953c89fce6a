// 3x3 convolutions of images so small that many of a kernel's nine places lie outside of them: of 4x4 pixels 44 of 144, of
// 2x2 pixels 20 of 36. Only products with pixels that there are get computed, plainly, of bfloat16 pairs; as the weights
// are many and the pixels few, threads share the channels, so that sums do not depend on how many there are.
#pragma once

#include <cstdint>

#include "shape.hpp"

namespace lth::conv {

// Kernels and their gradients stand as [output, 3, 3, input]; `after` is nothing or relu; height and width are any.
// `bias` may be null. Computed of `y` are the outputs first to first + count: whole panels of them.
void small_forward(const Shape&, int64_t first, int64_t count, const bf16* x, const float* weight, const float* bias,
                   bf16* y);

// Computed of `x_gradient` are the inputs first to first + count.
void small_backward_inputs(const Shape&, int64_t first, int64_t count, const float* weight, const bf16* y,
                           const bf16* y_gradient, bf16* x_gradient);

// Computed are the gradients of the kernels and biases of the outputs first to first + count.
void small_backward_kernels(const Shape&, int64_t first, int64_t count, const bf16* x, const bf16* y,
                            const bf16* y_gradient, float* weight_gradient, float* bias_gradient);

}  // namespace lth::conv
