// 3x3 convolutions for processors with bfloat16 dot products (AVX512_BF16), by Winograd's algorithm.
//
// On the way forward each 2x2 tile of the output comes from a 4x4 patch of the input, in 16 products in place of 36; a
// tile is also a window of pooling, so bias, pooling and ReLU are applied before anything is written. The gradients come
// from the adjoint formulas, on 4x4 tiles in 36 products in place of 144 where the image is made of such tiles. Rounding
// costs about 0.35% of a result's norm forward and 1% back; plainly in bfloat16, 0.25%.
//
// The products are of pairs of bfloat16 or, for processors whose float units are the faster ones, of floats: N says which.
// Activations are bfloat16 either way; the figures above are of bfloat16's products.
#pragma once

#include "shape.hpp"

namespace lth::conv {

// Kernels [output, input, 3, 3] as the two ways need them: 16, and 16 or 36, numbers for each.
template <class N>
void transform_forward(const float* weight, int64_t inputs, int64_t outputs, N* transformed);
template <class N>
void transform_backward(const Shape&, const float* weight, N* transformed);

// `bias` may be null. With pooling, `y` has half the height and width, and `chosen` gets the position of each window's
// maximum, 2 * row + column, the first on a tie; else `chosen` is not touched.
template <class N>
void forward(const Shape&, const bf16* x, const N* transformed, const float* bias, bf16* y, uint8_t* chosen);

// `y_gradient` is of the shape of `y`. `x_gradient` may be null: the first layer has none. The others are overwritten.
template <class N>
void backward(const Shape&, const bf16* x, const N* transformed, const bf16* y, const uint8_t* chosen,
              const bf16* y_gradient, bf16* x_gradient, float* weight_gradient, float* bias_gradient);

// Whether the compiler could build these kernels, and with them all others of this folder but the matrix unit's.
bool built();

}  // namespace lth::conv
