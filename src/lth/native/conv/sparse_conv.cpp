#include "sparse_conv.hpp"

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)

#include "masked.hpp"

namespace lth::conv {

namespace {

// The lanes of `vectors` vectors are images, and a tile of `height` rows of `width` pixels, the width of the image, is
// held in registers: at most 16 of them, so that the operands of a product fit too.
template <int tile_width, int tile_height, int tile_vectors>
struct Tile {
    static constexpr int width = tile_width, height = tile_height, vectors = tile_vectors;
    static constexpr int64_t strip = lanes * vectors, row = width * strip;

    // The rows of an image in this layout: whole tiles, and a row of zeros above and below.
    static int64_t rows(int64_t image_height) { return (image_height + height - 1) / height * height + 2; }
};

struct Room {
    Aligned<float> images, gradient, outputs;
};

thread_local Room room;

// A mask of the remaining lanes of 16 from the first on; empty if none remain.
inline __mmask16 first_lanes(int64_t count) { return count >= lanes ? 0xffff : count <= 0 ? 0 : (1u << count) - 1; }

// Channels first to first + count of a strip of images as [channel][row][column][image], with zeros outside.
template <class T>
void turn(int64_t images, int64_t height, int64_t channels, int64_t first, int64_t count, const bf16* in, float* out) {
    const int64_t rows = T::rows(height), size = rows * T::row, pixels = height * T::width;
    for (int64_t c = 0; c < count; ++c) {
        std::fill_n(out + c * size, T::row, 0.0f);
        std::fill_n(out + c * size + (height + 1) * T::row, (rows - height - 1) * T::row, 0.0f);
    }
    for (int64_t c = 0; c < count; c += lanes) {
        const __mmask16 there = first_lanes(count - c);
        for (int64_t p = 0; p < pixels; ++p) {
            for (int64_t n = 0; n < T::strip; n += lanes) {
                __m512 x[lanes];
                for (int64_t i = 0; i < lanes; ++i) {
                    const bf16* const from = in + ((n + i) * pixels + p) * channels + first + c;
                    x[i] = widened(load(n + i < images ? there : __mmask16(0), from));
                }
                transpose(x);
                float* const to = out + c * size + T::row + p * T::strip + n;
                for (int64_t i = 0; i < std::min<int64_t>(lanes, count - c); ++i) _mm512_store_ps(to + i * size, x[i]);
            }
        }
    }
}

// Write the sums of a tile, [channel][pixel][image]: channels first to first + count of the first `inside` pixels.
template <class T>
void turn_back(int64_t images, int64_t pixels, int64_t channels, int64_t first, int64_t count, int64_t inside,
               const float* sums, bf16* out) {
    for (int64_t c = 0; c < count; c += lanes) {
        const __mmask16 there = first_lanes(count - c);
        for (int64_t p = 0; p < inside; ++p) {
            for (int64_t n = 0; n < images; n += lanes) {
                __m512 x[lanes];
                for (int64_t i = 0; i < lanes; ++i) {
                    const float* const from = sums + (c + i) * T::height * T::row + p * T::strip + n;
                    x[i] = c + i < count ? _mm512_load_ps(from) : _mm512_setzero_ps();
                }
                transpose(x);
                for (int64_t i = 0; i < std::min<int64_t>(lanes, images - n); ++i) {
                    store(out + ((n + i) * pixels + p) * channels + first + c, there,
                                             reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x[i])));
                }
            }
        }
    }
}

template <class T>
using Pixels = __m512[T::height][T::width][T::vectors];

template <class T, class Do>
inline void each(const Do& what) {
#pragma GCC unroll 16
    for (int r = 0; r < T::height; ++r) {
#pragma GCC unroll 16
        for (int x = 0; x < T::width; ++x) {
#pragma GCC unroll 16
            for (int v = 0; v < T::vectors; ++v) what(r, x, v);
        }
    }
}

// Call what(row, column, vector, address) for the pixels of a tile whose neighbour at offset `right` - 1 is inside.
template <class T, int right, class Do>
inline void each_neighbour(const float* in, const Do& what) {
    each<T>([&](int r, int x, int v) {
        if (x + right < 1 || x + right > T::width) return;
        what(r, x, v, in + ((r * T::width + x + right - 1) * T::vectors + v) * lanes);
    });
}

// Apply the weights from entry to end, of one row and place, to a tile.
template <class T, int right>
inline void add_products(const SparseKernels& s, int64_t entry, int64_t end, int64_t size, const float* values,
                         const float* images, Pixels<T>& total) {
    for (; entry < end; ++entry) {
        const __m512 w = all(values[entry]);
        each_neighbour<T, right>(images + s.column[entry] * size, [&](int r, int x, int v, const float* in) {
            total[r][x][v] = _mm512_fmadd_ps(w, _mm512_load_ps(in), total[r][x][v]);
        });
    }
}

template <class T>
void convolve(const SparseKernels& s, int64_t images, int64_t height, const bf16* x, const float* values,
              const float* bias, bf16* y) {
    constexpr int64_t together = 32;  // rows of kernels whose outputs are written together
    const int64_t size = T::rows(height) * T::row, pixels = height * T::width;
    float* const turned = at_least(room.images, s.columns * size);
    float* const sums = at_least(room.outputs, together * T::height * T::row);  // [row of kernels][pixel][image]
    for (int64_t image = 0; image < images; image += T::strip) {
        const int64_t here = std::min(T::strip, images - image);
        turn<T>(here, height, s.columns, 0, s.columns, x + image * pixels * s.columns, turned);
        for (int64_t top = 0; top < height; top += T::height) {
            for (int64_t first = 0; first < s.rows; first += together) {
                const int64_t count = std::min(together, s.rows - first);
                for (int64_t k = first; k < first + count; ++k) {
                    Pixels<T> total;
                    const __m512 shift = all(bias ? bias[k] : 0.0f);
                    each<T>([&](int r, int c, int v) { total[r][c][v] = shift; });
                    int64_t entry = k ? s.ends[9 * k - 1] : 0;
                    for (int64_t down = 0; down < 3; ++down) {
                        const int64_t* const end = s.ends + 9 * k + 3 * down;
                        const float* const rows = turned + (top + down) * T::row;
                        add_products<T, 0>(s, entry, end[0], size, values, rows, total);
                        add_products<T, 1>(s, end[0], end[1], size, values, rows, total);
                        add_products<T, 2>(s, end[1], end[2], size, values, rows, total);
                        entry = end[2];
                    }
                    float* const out = sums + (k - first) * T::height * T::row;
                    each<T>([&](int r, int c, int v) {
                        _mm512_store_ps(out + ((r * T::width + c) * T::vectors + v) * lanes, total[r][c][v]);
                    });
                }
                const int64_t inside = std::min<int64_t>(T::height, height - top) * T::width;
                turn_back<T>(here, pixels, s.rows, first, count, inside, sums,
                             y + (image * pixels + top * T::width) * s.rows);
            }
        }
    }
}

// For the weights of one row and place: the summed products of a tile of the gradient and of the images.
template <class T, int right>
inline void add_sums(const SparseKernels& s, int64_t entry, int64_t end, int64_t size, const float* images,
                     const Pixels<T>& gradient, float* value_gradients) {
    for (; entry < end; entry += lanes) {
        const int count = int(std::min<int64_t>(lanes, end - entry));
        __m512 product[lanes];
        for (int i = 0; i < count; ++i) {
            __m512 part[4] = {};  // so that sums do not wait for each other
            each_neighbour<T, right>(images + s.column[entry + i] * size, [&](int r, int x, int v, const float* in) {
                __m512& sum = part[(r * T::width + x + v) % 4];
                sum = _mm512_fmadd_ps(gradient[r][x][v], _mm512_load_ps(in), sum);
            });
            product[i] = (part[0] + part[1]) + (part[2] + part[3]);
        }
        for (int i = count; i < lanes; ++i) product[i] = _mm512_setzero_ps();
        const __mmask16 there = __mmask16((1u << count) - 1);
        float* const to = value_gradients + entry;
        store(to, there, sums_of(product) + load(there, to));
    }
}

template <class T>
void convolve_values(const SparseKernels& s, int64_t first, int64_t count, int64_t images, int64_t height, const bf16* x,
                     const bf16* y_gradient, float* value_gradients) {
    const int64_t size = T::rows(height) * T::row, pixels = height * T::width;
    float* const turned = at_least(room.images, s.columns * size);
    float* const gradient = at_least(room.gradient, count * size);
    const int64_t begin = first ? s.ends[9 * first - 1] : 0;
    std::fill(value_gradients + begin, value_gradients + s.ends[9 * (first + count) - 1], 0.0f);
    for (int64_t image = 0; image < images; image += T::strip) {
        const int64_t here = std::min(T::strip, images - image);
        turn<T>(here, height, s.columns, 0, s.columns, x + image * pixels * s.columns, turned);
        turn<T>(here, height, s.rows, first, count, y_gradient + image * pixels * s.rows, gradient);
        for (int64_t top = 0; top < height; top += T::height) {
            for (int64_t k = first; k < first + count; ++k) {
                Pixels<T> d;
                const float* const from = gradient + (k - first) * size + (top + 1) * T::row;
                each<T>([&](int r, int c, int v) {
                    d[r][c][v] = _mm512_load_ps(from + ((r * T::width + c) * T::vectors + v) * lanes);
                });
                int64_t entry = k ? s.ends[9 * k - 1] : 0;
                for (int64_t down = 0; down < 3; ++down) {
                    const int64_t* const end = s.ends + 9 * k + 3 * down;
                    const float* const rows = turned + (top + down) * T::row;
                    add_sums<T, 0>(s, entry, end[0], size, rows, d, value_gradients);
                    add_sums<T, 1>(s, end[0], end[1], size, rows, d, value_gradients);
                    add_sums<T, 2>(s, end[1], end[2], size, rows, d, value_gradients);
                    entry = end[2];
                }
            }
        }
    }
}

// Call what(tile) for images of this width; returns false if there is no kernel.
template <class Do>
bool with_tile(int64_t width, const Do& what) {
    switch (width) {
        case 1: return what(Tile<1, 1, 4>()), true;
        case 2: return what(Tile<2, 2, 4>()), true;
        case 3: return what(Tile<3, 5, 1>()), true;
        case 4: return what(Tile<4, 4, 1>()), true;
        case 5: return what(Tile<5, 3, 1>()), true;
        case 6: return what(Tile<6, 2, 1>()), true;
        case 7: return what(Tile<7, 2, 1>()), true;
        case 8: return what(Tile<8, 2, 1>()), true;
        default: return false;
    }
}

}  // namespace

bool sparse_width(int64_t width) {
    return with_tile(width, [](auto) {});
}

void sparse_convolve(const SparseKernels& s, int64_t images, int64_t height, int64_t width, const bf16* x,
                     const float* values, const float* bias, bf16* y) {
    with_tile(width, [&](auto tile) { convolve<decltype(tile)>(s, images, height, x, values, bias, y); });
}

void sparse_convolve_values(const SparseKernels& s, int64_t first, int64_t count, int64_t images, int64_t height,
                            int64_t width, const bf16* x, const bf16* y_gradient, float* value_gradients) {
    with_tile(width, [&](auto tile) {
        convolve_values<decltype(tile)>(s, first, count, images, height, x, y_gradient, value_gradients);
    });
}

}  // namespace lth::conv

#else

namespace lth::conv {

bool sparse_width(int64_t) { return false; }
void sparse_convolve(const SparseKernels&, int64_t, int64_t, int64_t, const bf16*, const float*, const float*, bf16*) {}
void sparse_convolve_values(const SparseKernels&, int64_t, int64_t, int64_t, int64_t, int64_t, const bf16*, const bf16*,
                            float*) {}

}  // namespace lth::conv

#endif
