// 3x3 convolutions of few input channels, at most 4, and images of any size: a network's first layer.
//
// Plain products, no pooling, and no gradient of x: the first layer needs none. N as in winograd.hpp.
#pragma once

#include "shape.hpp"

namespace lth::conv {

template <class N>
void thin_forward(const Shape&, const bf16* x, const float* weight, const float* bias, bf16* y);
template <class N>
void thin_backward(const Shape&, const bf16* x, const bf16* y, const bf16* y_gradient, float* weight_gradient,
                   float* bias_gradient);

}  // namespace lth::conv
