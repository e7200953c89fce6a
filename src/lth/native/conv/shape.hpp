// The shape of a 3x3 convolution in bfloat16: its images, its channels, and the operations after it.
//
// Activations and their gradients are bfloat16, [image, row, column, channel]; all sums are float32.
#pragma once

#include <cstdint>

namespace lth::conv {

using bf16 = uint16_t;  // the upper half of a float

enum class After { nothing, relu, pool_relu };

struct Shape {
    int64_t images, height, width;  // height and width must be even for Winograd and for pooling
    int64_t inputs, outputs;        // channels: multiples of 16, except thin inputs
    After after;
};

// The number of vectors of 16 channels in a panel.
inline int panel_of(int64_t channels) { return channels % 64 == 0 ? 4 : channels % 32 == 0 ? 2 : 1; }

}  // namespace lth::conv
