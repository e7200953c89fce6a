// 2x2 max pooling, then ReLU, of images whose channels are the outputs of a shape; and the backward pass.
#pragma once

#include "shape.hpp"

namespace lth::conv {

void pool(const Shape&, const bf16* x, bf16* y, uint8_t* chosen);
void unpool(const Shape&, const bf16* y, const uint8_t* chosen, const bf16* y_gradient, bf16* x_gradient);

}  // namespace lth::conv
