// 3x3 convolutions for processors with bfloat16 dot products (AVX512_BF16), by Winograd's algorithm.
//
// In the forward pass each 2x2 tile of the output is computed from a 4x4 patch of the input, with 16 products instead
// of 36. A tile is also a pooling window, so bias, pooling and ReLU are applied before anything is written. The
// gradients use the adjoint formulas, on 4x4 tiles with 36 products instead of 144 if such tiles divide the image.
// Rounding costs about 0.35% of a result's norm in the forward and 1% in the backward pass; direct bfloat16 costs
// 0.25%.
//
// The products have pairs of bfloat16 as operands or, for processors whose float units are faster, floats, as given by
// N. Activations are bfloat16 in both cases; the numbers above are for bfloat16 products.
#pragma once

#include "shape.hpp"

namespace lth::conv {

// Kernels [output, input, 3, 3] transformed for the two passes: 16, and 16 or 36, elements each.
template <class N>
void transform_forward(const float* weight, int64_t inputs, int64_t outputs, N* transformed);
template <class N>
void transform_backward(const Shape&, const float* weight, N* transformed);

// `bias` may be null. With pooling, `y` has half the height and width, and `chosen` receives the position of each
// window's maximum, 2 * row + column, the first one on a tie; otherwise `chosen` is not used.
template <class N>
void forward(const Shape&, const bf16* x, const N* transformed, const float* bias, bf16* y, uint8_t* chosen);

// `y_gradient` has the shape of `y`. `x_gradient` may be null, for the first layer. The other outputs are overwritten.
template <class N>
void backward(const Shape&, const bf16* x, const N* transformed, const bf16* y, const uint8_t* chosen,
              const bf16* y_gradient, bf16* x_gradient, float* weight_gradient, float* bias_gradient);

// Whether the compiler could build these kernels, and with them all others in this folder except those for the matrix
// unit.
bool built();

}  // namespace lth::conv
