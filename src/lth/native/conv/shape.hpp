// What a 3x3 convolution in bfloat16 is given: its images, its channels, and what follows it.
//
// Activations and their gradients are bfloat16, [image, row, column, channel]; all sums are float32.
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

}  // namespace lth::conv
