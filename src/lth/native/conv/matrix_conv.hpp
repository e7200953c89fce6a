// 3x3 convolutions for processors with a unit for products of matrices of bfloat16 (Intel's AMX).
//
// Such a product is of a tile of 16 x 32 numbers with one of 32 x 16. A tile's rows here are images, all at the same
// pixel: so of a kernel's nine places those outside of the image cost nothing (44 of 144 of images of 4x4 pixels, 20 of
// 36 of 2x2), and images need not be some number of pixels wide. Inputs are copied to where a tile is one kilobyte in
// sequence. Each sum is added up in one order: the number of threads changes no bit.
#pragma once

#include <cstdint>

#include "shape.hpp"

namespace lth::conv {

// Images and channels of a tile; and of the blocks that are computed at a time, two by two tiles.
constexpr int64_t tile_side = 16, tile_depth = 32, matrix_block = 32;

// Of `n` images so many are computed: what is missing of the last block counts as zeros.
inline int64_t whole_blocks(int64_t n) { return (n + matrix_block - 1) / matrix_block * matrix_block; }

// Images [image, pixel, channel] for products with their channels: [pixel][32 channels][image][channel].
void rows_of_images(int64_t n, int64_t pixels, int64_t channels, int64_t first_pixel, int64_t count, const bf16* x,
                    bf16* rows);

// The same for products that sum over images: as their `left` side, [pixel][32 images][channel][image], or as the right
// side, [pixel][32 images][16 channels][pair of images][channel][which of the pair].
void pairs_of_images(int64_t n, int64_t pixels, int64_t channels, int64_t first_pixel, int64_t count, bool left,
                     const bf16* x, bf16* pairs);

// Of how many images the rows are made at a time, so that they stay in the cache.
int64_t images_at_a_time(const Shape&);

// In how many units a convolution is computed, each for itself. weight: [output, 3, 3, input] or, on the way back
// (`turned`), as the way forward has it, whose inputs are the outputs here. y: [image, row, column, output]; `bias` may
// be null.
int64_t convolve_units(const Shape&);
void convolve(const Shape&, int64_t first, int64_t count, const bf16* rows, const bf16* weight, bool turned,
              const bf16* bias, bf16* y);

// The same of the gradients of the kernels, [output, 3, 3, input]; x is the right side, the gradient of y the left.
int64_t kernel_units(const Shape&);
void kernel_gradients(const Shape&, int64_t first, int64_t count, const bf16* x, const bf16* gradient,
                      bf16* weight_gradient);

// Whether the compiler could build them, and the system lets this process use the unit.
bool matrix_unit();

}  // namespace lth::conv
