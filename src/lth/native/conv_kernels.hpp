// 3x3 convolutions and parameter updates for processors with bfloat16 dot products (AVX512_BF16).
//
// Activations and their gradients are bfloat16, [image, row, column, channel]; all sums are float32. A convolution is
// computed by Winograd's algorithm. On the way forward each 2x2 tile of the output comes from a 4x4 patch of the input, in
// 16 products in place of 36; a tile is also a window of pooling, so bias, pooling and ReLU are applied before anything
// is written. The gradients come from the adjoint formulas, on 4x4 tiles in 36 products in place of 144 where the image
// is made of such tiles. Rounding costs about 0.35% of a result's norm forward and 1% back; plainly in bfloat16, 0.25%.
//
// The products are of pairs of bfloat16 or, for processors whose float units are the faster ones, of floats: N says which.
// Activations are bfloat16 either way; the figures above are of bfloat16's products.
#pragma once

#include <cstdint>

namespace lth::conv {

using bf16 = uint16_t;  // the upper half of a float

enum class After { nothing, relu, pool_relu };

struct Shape {
    int64_t images, height, width;  // for Winograd and for pooling height and width are even
    int64_t inputs, outputs;        // channels: multiples of 16, thin inputs aside
    After after;
};

// Channels are computed in panels of so many vectors of 16.
inline int panel_of(int64_t channels) { return channels % 64 == 0 ? 4 : channels % 32 == 0 ? 2 : 1; }

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

// The same for few input channels, at most 4, and images of any size; plain products, no pooling, and no gradient of x:
// the first layer has none.
template <class N>
void thin_forward(const Shape&, const bf16* x, const float* weight, const float* bias, bf16* y);
template <class N>
void thin_backward(const Shape&, const bf16* x, const bf16* y, const bf16* y_gradient, float* weight_gradient,
                   float* bias_gradient);

// 2x2 max pooling, then ReLU, of images whose channels are the outputs of `shape`; and the way back.
void pool(const Shape&, const bf16* x, bf16* y, uint8_t* chosen);
void unpool(const Shape&, const bf16* y, const uint8_t* chosen, const bf16* y_gradient, bf16* x_gradient);

enum class Rule { sgd, momentum, adam };

struct Update {
    Rule rule;
    float lr, decay, momentum, beta1, beta2, epsilon, correction1, correction2;  // corrections: 1 - beta^t
};

// One update of `count` parameters by torch's formulas. `gradient` is float or (`narrow`) bfloat16; where `mask` is
// given and 0, gradient and decay count as 0. `copy`, where given, gets the new values as bfloat16.
void update(const Update&, int64_t count, const void* gradient, bool narrow, const uint8_t* mask, float* value,
            float* first, float* second, bf16* copy);

// Whether the compiler could build them.
bool built();

}  // namespace lth::conv
