#include "matrix_conv.hpp"

#if defined(__linux__) && defined(__AVX512BF16__) && (__GNUC__ >= 11 || __clang_major__ >= 12)

#include <sys/syscall.h>
#include <unistd.h>

#include "products.hpp"
#include "shared/sanitizer.hpp"

#define LTH_MATRIX __attribute__((target("amx-tile,amx-bf16")))

namespace lth::conv {

namespace {

constexpr int64_t tile = tile_side * tile_depth;      // elements of a bfloat16 tile
constexpr int64_t sums = tile_side * tile_side;       // elements of a tile of sums
constexpr int64_t cache = 1 << 20;                    // bytes of data that should stay in the second-level cache
constexpr int row_bytes = tile_depth * sizeof(bf16);  // bytes of a tile row; for sums, 16 floats

struct alignas(64) Tiles {  // the format that ldtilecfg reads
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
const Tiles all_whole;

// The range of a kernel's three rows or columns that are inside an image of width `side`, around pixel `at`.
struct Inside {
    int64_t first, end;
    Inside(int64_t at, int64_t side) : first(at == 0 ? 1 : 0), end(at == side - 1 ? 2 : 3) {}
};

inline void touch_tile(const void* p) { touch(p, tile_side * row_bytes); }

// Tiles 0 to 3 += tiles 4, 5 (two consecutive tiles of the left operand) x 6, 7 (two of the right operand).
LTH_MATRIX inline void multiply(const bf16* left, const bf16* right, const bf16* right_too) {
    for (const bf16* p : {left, left + tile, right, right_too}) touch_tile(p);
    _tile_loadd(4, left, row_bytes);
    _tile_loadd(6, right, row_bytes);
    _tile_loadd(5, left + tile, row_bytes);
    _tile_loadd(7, right_too, row_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

LTH_MATRIX inline void begin() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

LTH_MATRIX inline void store(float* to) {
    for (int t = 0; t < 4; ++t) touch_tile(to + t * sums);
    _tile_stored(0, to, row_bytes);
    _tile_stored(1, to + sums, row_bytes);
    _tile_stored(2, to + 2 * sums, row_bytes);
    _tile_stored(3, to + 3 * sums, row_bytes);
}

LTH_MATRIX inline void resume(const float* from) {
    for (int t = 0; t < 4; ++t) touch_tile(from + t * sums);
    _tile_loadd(0, from, row_bytes);
    _tile_loadd(1, from + sums, row_bytes);
    _tile_loadd(2, from + 2 * sums, row_bytes);
    _tile_loadd(3, from + 3 * sums, row_bytes);
}

inline __m512i load_row(const bf16* p) { return _mm512_loadu_si512(p); }

inline __m512i two(__m512 low, __m512 high) { return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)); }

// Sixteen elements of each of two rows, interleaved.
inline __m512i two_rows(const bf16* even, const bf16* odd) {
    const auto load = [](const bf16* p) {
        return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    };
    return _mm512_or_si512(load(even), _mm512_slli_epi32(load(odd), 16));
}

// Sixteen channels of a pair of images at a pixel; zeros if an image does not exist.
inline __m512i pair_at(int64_t n, int64_t image, int64_t stride, const bf16* x) {
    alignas(64) static const bf16 zeros[tile_side] = {};
    const bf16* const even = x + image * stride;
    return two_rows(image < n ? even : zeros, image + 1 < n ? even + stride : zeros);
}

// Kernels [output, 3, 3, input] of 16 outputs as the right operand: [place][32 inputs][pair][output][index in the
// pair].
void pack(int64_t inputs, int64_t, int64_t first, const bf16* weight, bf16* packed) {
    for (int64_t step = 0; step < 9 * inputs; step += tile_depth) {
        __m512 block[lanes];
        for (int64_t i = 0; i < lanes; ++i) {
            block[i] = _mm512_castsi512_ps(load_row(weight + (first + i) * 9 * inputs + step));
        }
        transpose(block);
        for (int64_t pair = 0; pair < lanes; ++pair) {
            _mm512_store_ps(packed + step * tile_side + pair * tile_depth, block[pair]);
        }
    }
}

// The same for the backward pass, for kernels [input, 3, 3, output]: the gradient's channels are the inputs here.
void pack_turned(int64_t inputs, int64_t outputs, int64_t first, const bf16* weight, bf16* packed) {
    for (int64_t place = 0; place < 9; ++place) {
        for (int64_t c = 0; c < inputs; c += 2) {
            const bf16* const from = weight + (c * 9 + 8 - place) * outputs + first;
            _mm512_store_si512(packed + (place * inputs + c) * tile_side, two_rows(from, from + 9 * outputs));
        }
    }
}

}  // namespace

void rows_of_images(int64_t n, int64_t pixels, int64_t channels, int64_t first_pixel, int64_t count, const bf16* x,
                    bf16* rows) {
    const int64_t images = whole_blocks(n);
    for (int64_t p = first_pixel; p < first_pixel + count; ++p) {
        for (int64_t i = 0; i < images; ++i) {
            for (int64_t c = 0; c < channels; c += tile_depth) {
                const __m512i row = i < n ? load_row(x + (i * pixels + p) * channels + c) : _mm512_setzero_si512();
                _mm512_store_si512(rows + (p * channels + c) * images + i * tile_depth, row);
            }
        }
    }
}

void pairs_of_images(int64_t n, int64_t pixels, int64_t channels, int64_t first_pixel, int64_t count, bool left,
                     const bf16* x, bf16* pairs) {
    const int64_t images = whole_blocks(n);
    for (int64_t p = first_pixel; p < first_pixel + count; ++p) {
        for (int64_t i = 0; i < images; i += tile_depth) {
            for (int64_t c = 0; c < channels; c += tile_side) {
                __m512 block[lanes];
                for (int64_t pair = 0; pair < lanes; ++pair) {
                    const __m512i both = pair_at(n, i + 2 * pair, pixels * channels, x + p * channels + c);
                    block[pair] = _mm512_castsi512_ps(both);
                }
                if (left) transpose(block);
                bf16* const to = pairs + (p * images + i) * channels + c * tile_depth;
                for (int64_t row = 0; row < lanes; ++row) _mm512_store_ps(to + row * tile_depth, block[row]);
            }
        }
    }
}

int64_t images_at_a_time(const Shape& s) {
    const int64_t of_each = std::max<int64_t>(1, s.height * s.width * s.inputs * int64_t(sizeof(bf16)));
    return std::max<int64_t>(1, cache / of_each / matrix_block) * matrix_block;
}

// A unit is a row of pixels for 32 outputs. Their kernels are packed once for all rows; kernels and images stay in the
// cache.
int64_t convolve_units(const Shape& s) { return s.height * (s.outputs / matrix_block); }

LTH_MATRIX void convolve(const Shape& s, int64_t first, int64_t count, const bf16* rows, const bf16* weight,
                         bool turned, const bf16* bias, bf16* y) {
    thread_local Aligned<bf16> kept;
    const int64_t images = whole_blocks(s.images), kernel = 9 * s.inputs * tile_side;
    bf16* const packed = at_least(kept, 2 * kernel);
    alignas(64) float found[4 * sums];
    int64_t k = -1;
    _tile_loadconfig(&all_whole);
    for (int64_t unit = first; unit < first + count; ++unit) {
        const int64_t row = unit % s.height;
        if (const int64_t block = unit / s.height * matrix_block; block != k) {
            k = block;
            for (int64_t i = 0; i < matrix_block; i += tile_side) {
                (turned ? pack_turned : pack)(s.inputs, s.outputs, k + i, weight, packed + i * 9 * s.inputs);
            }
            asm volatile("" ::: "memory");  // GCC does not know that tile loads read the data written here
        }
        const __m512 low = bias ? widen(bias + k) : _mm512_setzero_ps();
        const __m512 high = bias ? widen(bias + k + tile_side) : _mm512_setzero_ps();
        const Inside down(row, s.height);
        for (int64_t column = 0; column < s.width; ++column) {
            const Inside across(column, s.width);
            for (int64_t i = 0; i < images; i += matrix_block) {
                begin();
                for (int64_t a = down.first; a < down.end; ++a) {
                    for (int64_t b = across.first; b < across.end; ++b) {
                        const int64_t pixel = (row + a - 1) * s.width + column + b - 1;
                        const bf16* left = rows + pixel * s.inputs * images + i * tile_depth;
                        const bf16* right = packed + (3 * a + b) * s.inputs * tile_side;
                        for (int64_t c = 0; c < s.inputs; c += tile_depth) {
                            multiply(left, right, right + kernel);
                            left += tile_depth * images, right += tile;
                        }
                    }
                }
                store(found);
                const int64_t some = std::min(matrix_block, s.images - i);
                for (int64_t n = 0; n < some; ++n) {
                    const float* const from = found + n / tile_side * 2 * sums + n % tile_side * tile_side;
                    _mm512_storeu_si512(y + (((i + n) * s.height + row) * s.width + column) * s.outputs + k,
                                        two(_mm512_load_ps(from) + low, _mm512_load_ps(from + sums) + high));
                }
            }
        }
    }
    _tile_release();
}

// A unit is the three places of a kernel row, for 32 outputs and 32 inputs; images are processed in strips of rows that
// stay in the cache for all three.
int64_t kernel_units(const Shape& s) { return 3 * (s.outputs / matrix_block) * (s.inputs / matrix_block); }

LTH_MATRIX void kernel_gradients(const Shape& s, int64_t first, int64_t count, const bf16* x, const bf16* gradient,
                                 bf16* weight_gradient) {
    const int64_t images = whole_blocks(s.images), blocks = s.outputs / matrix_block;
    const int64_t row_size = s.width * images * 2 * matrix_block * int64_t(sizeof(bf16));
    const int64_t strip = std::max<int64_t>(1, cache / std::max<int64_t>(1, row_size));  // for images that do not exist: any rows
    alignas(64) float found[3][4 * sums];
    _tile_loadconfig(&all_whole);
    for (int64_t unit = first; unit < first + count; ++unit) {
        const int64_t a = unit % 3, k = unit / 3 % blocks * matrix_block, c = unit / 3 / blocks * matrix_block;
        const int64_t top = a == 0 ? 1 : 0, bottom = a == 2 ? s.height - 1 : s.height;
        begin();
        for (auto& place : found) store(place);
        for (int64_t from = top; from < bottom; from += strip) {
            for (int64_t b = 0; b < 3; ++b) {
                resume(found[b]);
                for (int64_t row = from; row < std::min(from + strip, bottom); ++row) {
                    for (int64_t column = b == 0; column < s.width - (b == 2); ++column) {
                        const int64_t pixel = row * s.width + column, at = pixel + (a - 1) * s.width + b - 1;
                        const bf16* left = gradient + pixel * images * s.outputs + k * tile_depth;
                        const bf16* right = x + at * images * s.inputs + c * tile_depth;
                        for (int64_t i = 0; i < images; i += tile_depth) {
                            multiply(left, right, right + tile);
                            left += tile_depth * s.outputs, right += tile_depth * s.inputs;
                        }
                    }
                }
                store(found[b]);
            }
        }
        for (int64_t b = 0; b < 3; ++b) {
            for (int64_t n = 0; n < matrix_block; ++n) {
                const float* const row = found[b] + n / tile_side * 2 * sums + n % tile_side * tile_side;
                bf16* const to = weight_gradient + ((k + n) * 9 + 3 * a + b) * s.inputs + c;
                _mm512_storeu_si512(to, two(_mm512_load_ps(row), _mm512_load_ps(row + sums)));
            }
        }
    }
    _tile_release();
}

bool matrix_unit() {
    constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, Linux 5.16
    static const bool granted = syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
    return granted;
}

}  // namespace lth::conv

#else

namespace lth::conv {

void rows_of_images(int64_t, int64_t, int64_t, int64_t, int64_t, const bf16*, bf16*) {}
void pairs_of_images(int64_t, int64_t, int64_t, int64_t, int64_t, bool, const bf16*, bf16*) {}
int64_t images_at_a_time(const Shape&) { return matrix_block; }
int64_t convolve_units(const Shape&) { return 0; }
void convolve(const Shape&, int64_t, int64_t, const bf16*, const bf16*, bool, const bf16*, bf16*) {}
int64_t kernel_units(const Shape&) { return 0; }
void kernel_gradients(const Shape&, int64_t, int64_t, const bf16*, const bf16*, bf16*) {}
bool matrix_unit() { return false; }

}  // namespace lth::conv

#endif
