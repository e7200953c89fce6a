// 3x3 convolutions with at most 4 input channels and images of any size: the first layer of a network.
//
// Direct products, without pooling and without a gradient of x, which the first layer does not need. N as in
// winograd.hpp.
#pragma once

#include "shape.hpp"

namespace lth::conv {

template <class N>
void thin_forward(const Shape&, const bf16* x, const float* weight, const float* bias, bf16* y);
template <class N>
void thin_backward(const Shape&, const bf16* x, const bf16* y, const bf16* y_gradient, float* weight_gradient,
                   float* bias_gradient);

}  // namespace lth::conv
