// 3x3 convolutions for processors with a bfloat16 matrix unit (Intel's AMX).
//
// The unit multiplies a tile of 16 x 32 elements with a tile of 32 x 16. Here the rows of a tile are images, all at the
// same pixel. So the places of a kernel that are outside of the image cost nothing (44 of 144 for images of 4x4 pixels,
// 20 of 36 for 2x2), and images may have any width. Inputs are copied so that a tile is one contiguous kilobyte. Sums
// are added in a fixed order, so the number of threads does not change the bits.
#pragma once

#include <cstdint>

#include "shape.hpp"

namespace lth::conv {

// Images and channels of a tile, and of the blocks that are computed together, two by two tiles.
constexpr int64_t tile_side = 16, tile_depth = 32, matrix_block = 32;

// The number of images that are computed for `n` images: the last block is padded with zeros.
inline int64_t whole_blocks(int64_t n) { return (n + matrix_block - 1) / matrix_block * matrix_block; }

// Images [image, pixel, channel] for products over channels: [pixel][32 channels][image][channel].
void rows_of_images(int64_t n, int64_t pixels, int64_t channels, int64_t first_pixel, int64_t count, const bf16* x,
                    bf16* rows);

// The same for products over images: as the left operand, [pixel][32 images][channel][image], or as the right operand,
// [pixel][32 images][16 channels][pair of images][channel][index in the pair].
void pairs_of_images(int64_t n, int64_t pixels, int64_t channels, int64_t first_pixel, int64_t count, bool left,
                     const bf16* x, bf16* pairs);

// The number of images whose rows are prepared together, so that they stay in the cache.
int64_t images_at_a_time(const Shape&);

// The number of independent units of a convolution. weight: [output, 3, 3, input] or, in the backward pass (`turned`),
// as in the forward pass, whose inputs are the outputs here. y: [image, row, column, output]; `bias` may be null.
int64_t convolve_units(const Shape&);
void convolve(const Shape&, int64_t first, int64_t count, const bf16* rows, const bf16* weight, bool turned,
              const bf16* bias, bf16* y);

// The same for the gradients of the kernels, [output, 3, 3, input]; x is the right operand, the gradient of y the left
// one.
int64_t kernel_units(const Shape&);
void kernel_gradients(const Shape&, int64_t first, int64_t count, const bf16* x, const bf16* gradient,
                      bf16* weight_gradient);

// Whether the compiler could build these kernels and the system lets this process use the unit.
bool matrix_unit();

}  // namespace lth::conv
