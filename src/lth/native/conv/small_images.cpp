#include "small_images.hpp"

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)

#include "products.hpp"

namespace lth::conv {

namespace {

constexpr int64_t images_at_once = 120;  // channels whose sums stay in the cache
constexpr int64_t outputs_at_once = 96;

struct Room {
    Aligned<bf16> images, kernels, gradient;
    Aligned<float> sums;
};

thread_local Room room;

// Position of place (i, j) of a 3x3 kernel for an output pixel, and whether it is inside the image.
struct Place {
    const Shape& s;
    int64_t row, column;

    bool inside() const { return 0 <= row && row < s.height && 0 <= column && column < s.width; }
    int64_t pixel() const { return row * s.width + column; }
};

// Strides between pixels and images of [image][channel]: one cache line more than needed, so that the rows of a product
// do not share a cache set.
int64_t line(int64_t channels) { return channels + 32; }

// Convert images first to first + count from [image][pixel][channel] to [pixel][image][channel]; `read` returns the
// channels.
template <class Read>
void by_pixel(int64_t pixels, int64_t channels, int64_t first, int64_t count, const Read& read, bf16* out) {
    for (int64_t n = 0; n < count; ++n) {
        for (int64_t p = 0; p < pixels; ++p) {
            for (int64_t c = 0; c < channels; c += lanes) {
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + (p * count + n) * line(channels) + c),
                                    read(((first + n) * pixels + p) * channels + c));
            }
        }
    }
}

inline __m256i read(const bf16* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

// The gradient if the ReLU was active.
inline __m256i read_alive(const Shape& s, const bf16* gradient, const bf16* y) {
    if (s.after == After::nothing) return read(gradient);
    // NaN is not equal to 0, so it passes
    const __m256i sign = _mm256_set1_epi16(0x7fff);
    return _mm256_maskz_mov_epi16(_mm256_test_epi16_mask(read(y), sign), read(gradient));
}

// Products of rows [pixel][image] and kernels [place][step][column], over the places that `at` finds inside, passed to
// write(pixel, image, sums).
template <class At, class Write>
void over_places(const Shape& s, int64_t images, int64_t depth, int panel, const bf16* rows, const bf16* kernels,
                 const At& at, const Write& write) {
    const int64_t columns = panel * lanes, steps = depth / 2;
    float* const sums = at_least(room.sums, images * columns);
    for (int64_t pixel = 0; pixel < s.height * s.width; ++pixel) {
        bool add = false;
        for (int64_t place = 0; place < 9; ++place) {
            const Place from = at(pixel / s.width, pixel % s.width, place / 3, place % 3);
            if (!from.inside()) continue;
            multiply<bf16>(panel, images, {rows + from.pixel() * images * line(depth), line(depth), 2},
                           {kernels + place * steps * columns * 2, 2 * columns}, steps, sums, columns, add);
            add = true;
        }
        for (int64_t n = 0; n < images; ++n) write(pixel, n, sums + n * columns);
    }
}

}  // namespace

void small_forward(const Shape& s, int64_t first, int64_t count, const bf16* x, const float* weight, const float* bias,
                   bf16* y) {
    const int panel = panel_of(count);
    const int64_t columns = panel * lanes, pixels = s.height * s.width;
    const __m512 zero = _mm512_setzero_ps();
    bf16* const kernels = at_least(room.kernels, 9 * s.inputs * count);  // [panel][place][pair of inputs][output][2]
    for (int64_t k = 0; k < count; ++k) {
        for (int64_t place = 0; place < 9; ++place) {
            const float* const from = weight + ((first + k) * 9 + place) * s.inputs;
            bf16* const to = kernels + (k / columns * 9 + place) * s.inputs * columns + 2 * (k % columns);
            for (int64_t c = 0; c < s.inputs; c += lanes) {
                alignas(64) uint32_t narrowed[lanes / 2];
                narrow(reinterpret_cast<bf16*>(narrowed), _mm512_loadu_ps(from + c));
                for (int64_t i = 0; i < lanes / 2; ++i) std::memcpy(to + (c + 2 * i) * columns, narrowed + i, 4);
            }
        }
    }
    for (int64_t image = 0; image < s.images; image += images_at_once) {
        const int64_t here = std::min(images_at_once, s.images - image);
        bf16* const rows = at_least(room.images, pixels * here * line(s.inputs));
        by_pixel(pixels, s.inputs, image, here, [&](int64_t at) { return read(x + at); }, rows);
        for (int64_t k = 0; k < count; k += columns) {
            const auto at = [&](int64_t row, int64_t column, int64_t i, int64_t j) {
                return Place{s, row + i - 1, column + j - 1};
            };
            over_places(s, here, s.inputs, panel, rows, kernels + k * 9 * s.inputs, at,
                        [&](int64_t pixel, int64_t n, const float* sums) {
                            bf16* const out = y + ((image + n) * pixels + pixel) * s.outputs + first + k;
                            for (int64_t c = 0; c < columns; c += lanes) {
                                const __m512 shift = bias ? _mm512_loadu_ps(bias + first + k + c) : zero;
                                const __m512 value = _mm512_loadu_ps(sums + c) + shift;
                                narrow(out + c, s.after == After::relu ? _mm512_max_ps(zero, value) : value);
                            }
                        });
        }
    }
}

void small_backward_inputs(const Shape& s, int64_t first, int64_t count, const float* weight, const bf16* y,
                           const bf16* y_gradient, bf16* x_gradient) {
    const int panel = panel_of(count);
    const int64_t columns = panel * lanes, pixels = s.height * s.width;
    bf16* const kernels = at_least(room.kernels, 9 * s.outputs * count);  // [panel][place][pair of outputs][input][2]
    for (int64_t k = 0; k < s.outputs; k += 2) {
        for (int64_t place = 0; place < 9; ++place) {
            const float* const from = weight + (k * 9 + place) * s.inputs + first;
            for (int64_t c = 0; c < count; c += lanes) {
                bf16* const to = kernels + ((c / columns * 9 + place) * s.outputs + k) * columns + 2 * (c % columns);
                _mm512_storeu_si512(to, pairs(_mm512_loadu_ps(from + c), _mm512_loadu_ps(from + c + 9 * s.inputs)));
            }
        }
    }
    for (int64_t image = 0; image < s.images; image += images_at_once) {
        const int64_t here = std::min(images_at_once, s.images - image);
        bf16* const rows = at_least(room.gradient, pixels * here * line(s.outputs));
        by_pixel(pixels, s.outputs, image, here, [&](int64_t at) { return read_alive(s, y_gradient + at, y + at); }, rows);
        for (int64_t c = 0; c < count; c += columns) {
            const auto at = [&](int64_t row, int64_t column, int64_t i, int64_t j) {
                return Place{s, row - i + 1, column - j + 1};
            };
            over_places(s, here, s.outputs, panel, rows, kernels + c * 9 * s.outputs, at,
                        [&](int64_t pixel, int64_t n, const float* sums) {
                            bf16* const out = x_gradient + ((image + n) * pixels + pixel) * s.inputs + first + c;
                            for (int64_t i = 0; i < columns; i += lanes) narrow(out + i, _mm512_loadu_ps(sums + i));
                        });
        }
    }
}

void small_backward_kernels(const Shape& s, int64_t first, int64_t count, const bf16* x, const bf16* y,
                            const bf16* y_gradient, float* weight_gradient, float* bias_gradient) {
    const int panel = panel_of(s.inputs);
    const int64_t columns = panel * lanes, pixels = s.height * s.width, steps = (s.images + 1) / 2;
    const __m256i none = _mm256_setzero_si256();
    const auto widened = [](__m256i bits) { return _mm512_cvtepu16_epi32(bits); };
    const auto paired = [&](__m256i even, __m256i odd) {
        return _mm512_or_si512(widened(even), _mm512_slli_epi32(widened(odd), 16));
    };
    const auto as_floats = [&](__m256i bits) { return _mm512_castsi512_ps(_mm512_slli_epi32(widened(bits), 16)); };
    // images: [panel][pixel][pair of images][input][2]; gradients of some outputs: [pixel][pair of images][output][2]
    bf16* const images = at_least(room.images, pixels * steps * 2 * s.inputs);
    bf16* const gradients = at_least(room.gradient, pixels * steps * 2 * outputs_at_once);
    float* const sums = at_least(room.sums, outputs_at_once * columns);
    for (int64_t n = 0; n < s.images; n += 2) {
        for (int64_t p = 0; p < pixels; ++p) {
            for (int64_t c = 0; c < s.inputs; c += lanes) {
                const bf16* const from = x + (n * pixels + p) * s.inputs + c;
                const __m256i odd = n + 1 < s.images ? read(from + pixels * s.inputs) : none;
                bf16* const to = images + (((c / columns * pixels) + p) * steps + n / 2) * 2 * columns + 2 * (c % columns);
                _mm512_storeu_si512(to, paired(read(from), odd));
            }
        }
    }
    std::fill_n(bias_gradient + first, count, 0.0f);
    for (int64_t k = first; k < first + count; k += outputs_at_once) {
        const int64_t here = std::min(outputs_at_once, first + count - k);
        for (int64_t n = 0; n < s.images; n += 2) {
            for (int64_t p = 0; p < pixels; ++p) {
                for (int64_t i = 0; i < here; i += lanes) {
                    const int64_t from = (n * pixels + p) * s.outputs + k + i, next = from + pixels * s.outputs;
                    const __m256i even = read_alive(s, y_gradient + from, y + from);
                    const __m256i odd = n + 1 < s.images ? read_alive(s, y_gradient + next, y + next) : none;
                    _mm512_storeu_si512(gradients + ((p * steps + n / 2) * here + i) * 2, paired(even, odd));
                    add_to(bias_gradient + k + i, as_floats(even) + as_floats(odd));
                }
            }
        }
        for (int64_t c = 0; c < s.inputs; c += columns) {
            for (int64_t place = 0; place < 9; ++place) {
                const int64_t down = place / 3 - 1, right = place % 3 - 1;
                const int64_t begin = std::max<int64_t>(0, -right), end = std::min(s.width, s.width - right);
                bool add = false;  // adjacent pixels that are summed together
                for (int64_t row = std::max<int64_t>(0, -down); row < std::min(s.height, s.height - down) && begin < end; ++row) {
                    const int64_t to = row * s.width + begin, from = (row + down) * s.width + begin + right;
                    multiply<bf16>(panel, here, {gradients + to * steps * here * 2, 2, 2 * here},
                                   {images + (c / columns * pixels + from) * steps * 2 * columns, 2 * columns},
                                   (end - begin) * steps, sums, columns, add);
                    add = true;
                }
                for (int64_t i = 0; i < here; ++i) {
                    float* const out = weight_gradient + ((k + i) * 9 + place) * s.inputs + c;
                    for (int64_t v = 0; v < columns; v += lanes) {
                        _mm512_storeu_ps(out + v, add ? _mm512_loadu_ps(sums + i * columns + v) : _mm512_setzero_ps());
                    }
                }
            }
        }
    }
}

}  // namespace lth::conv

#else

namespace lth::conv {

void small_forward(const Shape&, int64_t, int64_t, const bf16*, const float*, const float*, bf16*) {}
void small_backward_inputs(const Shape&, int64_t, int64_t, const float*, const bf16*, const bf16*, bf16*) {}
void small_backward_kernels(const Shape&, int64_t, int64_t, const bf16*, const bf16*, const bf16*, float*, float*) {}

}  // namespace lth::conv

#endif
