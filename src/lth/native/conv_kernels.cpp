#include "conv_kernels.hpp"

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)

#include <cmath>
#include <utility>

#include "products.hpp"

namespace lth::conv {

namespace {

// Tiles at a time: their patches and products stay in the cache.
template <class N>
constexpr int64_t block = 96 / int64_t(sizeof(N) / sizeof(bf16));

// From one position of a block's T to the next: a cache line more than they take, so that the sixteen do not fall into
// one set of the cache.
template <class N, class T>
constexpr int64_t plane(int64_t channels) { return block<N> * channels + int64_t(64 / sizeof(T)); }

int64_t tiles_per_image(const Shape& s, int64_t side) { return (s.height / side) * (s.width / side); }

struct Pixels {
    int64_t image, row, column;  // of the upper left corner of a tile of the output
};

Pixels pixels(const Shape& s, int64_t side, int64_t tile) {
    const int64_t across = s.width / side, per_image = tiles_per_image(s, side), inside = tile % per_image;
    return {tile / per_image, side * (inside / across), side * (inside % across)};
}

// ------------------------------------------------------------------------------------------------------- transforms

// Winograd's matrices for tiles of side x side outputs: the tile is A' ((G w G') * (B' d B)) A for a kernel w and a patch
// d of patch x patch inputs, all products by position. From Toom and Cook's scheme at the points given.

struct Two {  // 0, 1, -1, infinity
    static constexpr int side = 2, patch = 4;
    struct OutputT {
        static constexpr int rows = 2, columns = 4;
        static constexpr float at[rows][columns] = {{1, 1, 1, 0}, {0, 1, -1, -1}};
    };
    struct Kernel {
        static constexpr int rows = 4, columns = 3;
        static constexpr float at[rows][columns] = {{1, 0, 0}, {0.5f, 0.5f, 0.5f}, {0.5f, -0.5f, 0.5f}, {0, 0, 1}};
    };
    struct InputT {
        static constexpr int rows = 4, columns = 4;
        static constexpr float at[rows][columns] = {{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, 1, 0, -1}};
    };
};

struct Four {  // 0, p, -p, q, -q, infinity: with p q = 1 the least error of those tried
    static constexpr int side = 4, patch = 6;
    static constexpr double p = 2.0 / 3, q = 3.0 / 2, pp = p * p, qq = q * q;
    static constexpr double of_p = 1 / (2 * pp * (pp - qq)), of_q = 1 / (2 * qq * (qq - pp));
    struct OutputT {
        static constexpr int rows = 4, columns = 6;
        static constexpr float at[rows][columns] = {{1, 1, 1, 1, 1, 0},
                                                    {0, float(p), float(-p), float(q), float(-q), 0},
                                                    {0, float(pp), float(pp), float(qq), float(qq), 0},
                                                    {0, float(p * pp), float(-p * pp), float(q * qq), float(-q * qq), 1}};
    };
    struct Kernel {
        static constexpr int rows = 6, columns = 3;
        static constexpr float at[rows][columns] = {{float(1 / (pp * qq)), 0, 0},
                                                    {float(of_p), float(of_p * p), float(of_p * pp)},
                                                    {float(of_p), float(-of_p * p), float(of_p * pp)},
                                                    {float(of_q), float(of_q * q), float(of_q * qq)},
                                                    {float(of_q), float(-of_q * q), float(of_q * qq)},
                                                    {0, 0, 1}};
    };
    struct InputT {
        static constexpr int rows = 6, columns = 6;
        static constexpr float at[rows][columns] = {{float(pp * qq), 0, float(-pp - qq), 0, 1, 0},
                                                    {0, float(-p * qq), float(-qq), float(p), 1, 0},
                                                    {0, float(p * qq), float(-qq), float(-p), 1, 0},
                                                    {0, float(-q * pp), float(-pp), float(q), 1, 0},
                                                    {0, float(q * pp), float(-pp), float(-q), 1, 0},
                                                    {0, float(pp * qq), 0, float(-pp - qq), 0, 1}};
    };
};

template <class M>
struct Plain {
    static constexpr int rows = M::rows, columns = M::columns;
    static constexpr float at(int i, int k) { return M::at[i][k]; }
};

template <class M>
struct Turned {
    static constexpr int rows = M::columns, columns = M::rows;
    static constexpr float at(int i, int k) { return M::at[k][i]; }
};

// Row i of M times a column of vectors, `step` apart; M is known to the compiler, so that zeros and ones cost nothing.
template <class M, int i, int k = 0, bool begun = false>
inline __m512 row_times(const __m512* column, int step, __m512 sum = __m512()) {
    if constexpr (k == M::columns) {
        return sum;
    } else {
        constexpr float c = M::at(i, k);
        const __m512 x = column[k * step];
        if constexpr (c == 0.0f) return row_times<M, i, k + 1, begun>(column, step, sum);
        else if constexpr (!begun && c == 1.0f) return row_times<M, i, k + 1, true>(column, step, x);
        else if constexpr (!begun) return row_times<M, i, k + 1, true>(column, step, all(c) * x);
        else if constexpr (c == 1.0f) return row_times<M, i, k + 1, true>(column, step, sum + x);
        else if constexpr (c == -1.0f) return row_times<M, i, k + 1, true>(column, step, sum - x);
        else return row_times<M, i, k + 1, true>(column, step, _mm512_fmadd_ps(all(c), x, sum));
    }
}

template <class M, int... i>
inline void times(const __m512* column, int step, __m512* out, int out_step, std::integer_sequence<int, i...>) {
    ((out[i * out_step] = row_times<M, i>(column, step)), ...);
}

// M x M'.
template <class M>
inline void both_sides(const __m512 (&x)[M::columns][M::columns], __m512 (&out)[M::rows][M::rows]) {
    constexpr auto every = std::make_integer_sequence<int, M::rows>{};
    __m512 half[M::rows][M::columns];
    for (int j = 0; j < M::columns; ++j) times<M>(&x[0][j], M::columns, &half[0][j], M::columns, every);
    for (int i = 0; i < M::rows; ++i) times<M>(half[i], 1, out[i], 1, every);
}

// B' d B of the patches of tiles first to first + count, to v[position][tile][channel].
template <class F, class N>
void patches(const Shape& s, const bf16* x, int64_t first, int64_t count, const bf16* zeros, N* v) {
    constexpr int n = F::patch;
    const int64_t channels = s.inputs, stride = plane<N, N>(channels);
    for (int64_t t = 0; t < count; ++t) {
        const Pixels at = pixels(s, F::side, first + t);
        const bf16* from[n][n];
        for (int i = 0; i < n; ++i) {
            for (int j = 0; j < n; ++j) {
                const int64_t row = at.row + i - 1, column = at.column + j - 1;
                const bool inside = row >= 0 && row < s.height && column >= 0 && column < s.width;
                from[i][j] = inside ? x + ((at.image * s.height + row) * s.width + column) * channels : zeros;
            }
        }
        for (int64_t c = 0; c < channels; c += lanes) {
            __m512 d[n][n], found[n][n];
            for (int i = 0; i < n; ++i) {
                for (int j = 0; j < n; ++j) d[i][j] = widen(from[i][j] + c);
            }
            both_sides<Plain<typename F::InputT>>(d, found);
            for (int p = 0; p < n * n; ++p) put(v + p * stride + t * channels + c, found[p / n][p % n]);
        }
    }
}

// ReLU of a window's maximum plus `shift`, and where it stood.
inline void largest(const __m512 (&window)[2][2], __m512 shift, bf16* y, uint8_t* chosen) {
    __m512 best = window[0][0];
    __m128i which = _mm_setzero_si128();
    for (int p = 1; p < 4; ++p) {
        const __m512 rival = window[p / 2][p % 2];
        // a NaN wins and stays, to be seen in the loss
        const __mmask16 better = _mm512_cmp_ps_mask(rival, best, _CMP_GT_OQ) | _mm512_cmp_ps_mask(rival, rival, _CMP_UNORD_Q);
        best = _mm512_mask_mov_ps(best, better, rival);
        which = _mm_mask_mov_epi8(which, better, _mm_set1_epi8(char(p)));
    }
    narrow(y, _mm512_max_ps(_mm512_setzero_ps(), best + shift));  // of a NaN and a number, max gives the second
    _mm_storeu_si128(reinterpret_cast<__m128i*>(chosen), which);
}

// Bias, pooling and ReLU of `columns` channels from `first_channel` on, of the tiles first to first + count.
void finish(const Shape& s, const float* m, int64_t stride, int64_t columns, int64_t first_channel, const float* bias,
            int64_t first, int64_t count, bf16* y, uint8_t* chosen) {
    const __m512 zero = _mm512_setzero_ps();
    for (int64_t t = 0; t < count; ++t) {
        const Pixels at = pixels(s, Two::side, first + t);
        for (int64_t k = 0; k < columns; k += lanes) {
            const __m512 shift = bias ? _mm512_loadu_ps(bias + first_channel + k) : zero;
            __m512 products[4][4], tile[2][2];
            for (int p = 0; p < 16; ++p) products[p / 4][p % 4] = _mm512_loadu_ps(m + p * stride + t * columns + k);
            both_sides<Plain<Two::OutputT>>(products, tile);
            if (s.after == After::pool_relu) {
                const int64_t out = (first + t) * s.outputs + first_channel + k;
                largest(tile, shift, y + out, chosen + out);
            } else {
                for (int p = 0; p < 4; ++p) {
                    const __m512 value = tile[p / 2][p % 2] + shift;
                    const int64_t pixel = (at.image * s.height + at.row + p / 2) * s.width + at.column + p % 2;
                    narrow(y + pixel * s.outputs + first_channel + k,
                           s.after == After::relu ? _mm512_max_ps(zero, value) : value);
                }
            }
        }
    }
}

// The gradient of a tile's pixels before pooling and ReLU; adds up the bias's.
template <int side>
inline void before(const Shape& s, const bf16* gradient, const bf16* y, const uint8_t* chosen, const Pixels& at,
                   int64_t channel, float* bias_gradient, __m512 (&g)[side][side]) {
    __m512 sum = _mm512_setzero_ps();
    if (s.after == After::pool_relu) {
        for (int w = 0; w < side * side / 4; ++w) {
            const int row = w / (side / 2), column = w % (side / 2);
            const int64_t pixel = (at.image * s.height / 2 + at.row / 2 + row) * (s.width / 2) + at.column / 2 + column;
            const int64_t from = pixel * s.outputs + channel;
            const __m512 alive = alive_gradient(s, gradient + from, y + from);
            const __m128i which = _mm_loadu_si128(reinterpret_cast<const __m128i*>(chosen + from));
            for (int p = 0; p < 4; ++p) {
                const __mmask16 here = _mm_cmpeq_epi8_mask(which, _mm_set1_epi8(char(p)));
                g[2 * row + p / 2][2 * column + p % 2] = _mm512_maskz_mov_ps(here, alive);
            }
            sum += alive;
        }
    } else {
        for (int p = 0; p < side * side; ++p) {
            const int64_t pixel = (at.image * s.height + at.row + p / side) * s.width + at.column + p % side;
            const int64_t from = pixel * s.outputs + channel;
            g[p / side][p % side] = alive_gradient(s, gradient + from, y + from);
            sum += g[p / side][p % side];
        }
    }
    add_to(bias_gradient + channel, sum);
}

// A g A' of the tiles first to first + count, to d[position][tile][channel].
template <class F, class N>
void spread(const Shape& s, const bf16* gradient, const bf16* y, const uint8_t* chosen, int64_t first, int64_t count,
            N* d, float* bias_gradient) {
    constexpr int n = F::patch;
    const int64_t channels = s.outputs, stride = plane<N, N>(channels);
    for (int64_t t = 0; t < count; ++t) {
        const Pixels at = pixels(s, F::side, first + t);
        for (int64_t k = 0; k < channels; k += lanes) {
            __m512 g[F::side][F::side], found[n][n];
            before<F::side>(s, gradient, y, chosen, at, k, bias_gradient, g);
            both_sides<Turned<typename F::OutputT>>(g, found);
            for (int p = 0; p < n * n; ++p) put(d + p * stride + t * channels + k, found[p / n][p % n]);
        }
    }
}

// Adds B m B' of each tile to its patch of the images, which have a border of one pixel.
template <class F>
void scatter(const Shape& s, const float* m, int64_t stride, int64_t columns, int64_t first_channel, int64_t first,
             int64_t count, int64_t first_image, float* images) {
    constexpr int n = F::patch;
    const int64_t width = s.width + 2, height = s.height + 2;
    for (int64_t t = 0; t < count; ++t) {
        const Pixels at = pixels(s, F::side, first + t);
        const int64_t corner = ((at.image - first_image) * height + at.row) * width + at.column;
        for (int64_t c = 0; c < columns; c += lanes) {
            __m512 products[n][n], found[n][n];
            for (int p = 0; p < n * n; ++p) products[p / n][p % n] = _mm512_loadu_ps(m + p * stride + t * columns + c);
            both_sides<Turned<typename F::InputT>>(products, found);
            for (int p = 0; p < n * n; ++p) {
                add_to(images + (corner + (p / n) * width + p % n) * s.inputs + first_channel + c, found[p / n][p % n]);
            }
        }
    }
}

void write_image(const Shape& s, const float* image, bf16* out) {
    for (int64_t row = 0; row < s.height; ++row) {
        const float* from = image + ((row + 1) * (s.width + 2) + 1) * s.inputs;
        for (int64_t i = 0; i < s.width * s.inputs; i += lanes) narrow(out + row * s.width * s.inputs + i, _mm512_loadu_ps(from + i));
    }
}

// G w G' of 16 kernels at a time: lane l has the kernel that begins at w + l * stride.
template <class F>
inline void kernel_patches(const float* w, int64_t stride, __m512 (&u)[F::patch][F::patch]) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i offsets = _mm512_mullo_epi32(lane, _mm512_set1_epi32(int32_t(stride)));
    __m512 kernel[3][3];
    for (int n = 0; n < 9; ++n) kernel[n / 3][n % 3] = _mm512_i32gather_ps(offsets, w + n, 4);
    both_sides<Plain<typename F::Kernel>>(kernel, u);
}

// Kernels as the right side of products that sum over `depth` channels: [panel][position][step][column][term].
template <class F, class N>
void pack_kernels(const float* w, int64_t depth, int64_t depth_stride, int64_t columns, int64_t column_stride, N* out) {
    constexpr int n = F::patch;
    const int64_t panel = panel_of(columns) * lanes;
    for (int64_t k = 0; k < columns; k += lanes) {
        for (int64_t c = 0; c < depth; c += terms<N>) {
            __m512 u[terms<N>][n][n];
            for (int i = 0; i < terms<N>; ++i) {
                kernel_patches<F>(w + k * column_stride + (c + i) * depth_stride, column_stride, u[i]);
            }
            for (int p = 0; p < n * n; ++p) {
                const int64_t row = ((k / panel) * n * n + p) * (depth / terms<N>) + c / terms<N>;
                N* const to = out + (row * panel + k % panel) * terms<N>;
                if constexpr (terms<N> == 2) {
                    _mm512_storeu_si512(to, pairs(u[0][p / n][p % n], u[1][p / n][p % n]));
                } else {
                    put(to, u[0][p / n][p % n]);
                }
            }
        }
    }
}

// G' u G of u[position][input][output], to the gradient of kernels [output, input, 3, 3].
template <class F>
void kernel_gradient(const float* u, int64_t inputs, int64_t outputs, float* gradient) {
    constexpr int n = F::patch;
    for (int64_t c = 0; c < inputs; ++c) {
        for (int64_t k = 0; k < outputs; k += lanes) {
            __m512 sums[n][n], found[3][3];
            for (int p = 0; p < n * n; ++p) sums[p / n][p % n] = _mm512_loadu_ps(u + (p * inputs + c) * outputs + k);
            both_sides<Turned<typename F::Kernel>>(sums, found);
            alignas(64) float kernels[9][lanes];
            for (int i = 0; i < 9; ++i) _mm512_store_ps(kernels[i], found[i / 3][i % 3]);
            for (int l = 0; l < lanes; ++l) {
                for (int i = 0; i < 9; ++i) gradient[((k + l) * inputs + c) * 9 + i] = kernels[i][l];
            }
        }
    }
}

struct Workspace {
    Aligned<bf16> zeros, around;
    Aligned<float> products, kernels, images;
};

template <class N>
struct Operands {
    Aligned<N> patch, gradient, patch_rows, gradient_rows;
};

thread_local Workspace workspace;
template <class N>
thread_local Operands<N> operands;

const bf16* zero_row(int64_t channels) { return at_least(workspace.zeros, channels); }

// Forward the smaller tiles, whose error is a third; back the larger ones, where the image is made of them.
using Forward = Two;

bool by_four(int64_t height, int64_t width) { return height % 4 == 0 && width % 4 == 0; }

template <class F, class N>
void backward_by(const Shape& s, const bf16* x, const N* transformed, const bf16* y, const uint8_t* chosen,
                 const bf16* y_gradient, bf16* x_gradient, float* weight_gradient, float* bias_gradient) {
    constexpr int positions = F::patch * F::patch;
    const int panel = panel_of(s.inputs), output_panel = panel_of(s.outputs);
    const int64_t columns = panel * lanes, output_columns = output_panel * lanes;
    const int64_t v_plane = plane<N, N>(s.inputs), d_plane = plane<N, N>(s.outputs), m_plane = plane<N, float>(columns);
    const int64_t per_image = tiles_per_image(s, F::side), pixels_with_border = (s.height + 2) * (s.width + 2);
    const int64_t group = std::max<int64_t>(1, block<N> / per_image);  // images whose gradients are made together
    N* const v = at_least(operands<N>.patch, positions * v_plane);
    N* const d = at_least(operands<N>.gradient, positions * d_plane);
    float* const m = at_least(workspace.products, positions * m_plane);
    float* const u = at_least(workspace.kernels, positions * s.inputs * s.outputs);
    float* const images = at_least(workspace.images, group * pixels_with_border * s.inputs);
    std::fill_n(bias_gradient, s.outputs, 0.0f);
    bool add = false;
    for (int64_t image = 0; image < s.images; image += group) {
        const int64_t here = std::min(group, s.images - image), end = (image + here) * per_image;
        if (x_gradient) std::fill_n(images, here * pixels_with_border * s.inputs, 0.0f);
        for (int64_t first = image * per_image; first < end; first += block<N>) {
            const int64_t count = std::min(block<N>, end - first);
            patches<F>(s, x, first, count, zero_row(s.inputs), v);
            spread<F>(s, y_gradient, y, chosen, first, count, d, bias_gradient);
            for (int64_t c = 0; x_gradient && c < s.inputs; c += columns) {
                const N* w = transformed + positions * c * s.outputs;
                for (int p = 0; p < positions; ++p, w += columns * s.outputs) {
                    multiply<N>(panel, count, {d + p * d_plane, s.outputs, terms<N>}, {w, terms<N> * columns},
                                s.outputs / terms<N>, m + p * m_plane, columns, false);
                }
                scatter<F>(s, m, m_plane, columns, c, first, count, image, images);
            }
            for (int p = 0; p < positions; ++p) {  // a block is even: there is room for a row of zeros
                const N* const vp = by_rows(v + p * v_plane, count, s.inputs, operands<N>.patch_rows);
                const N* const dp = by_rows(d + p * d_plane, count, s.outputs, operands<N>.gradient_rows);
                for (int64_t k = 0; k < s.outputs; k += output_columns) {
                    multiply<N>(output_panel, s.inputs, {vp, terms<N>, terms<N> * s.inputs},
                                {dp + terms<N> * k, terms<N> * s.outputs}, (count + terms<N> - 1) / terms<N>,
                                u + p * s.inputs * s.outputs + k, s.outputs, add);
                }
            }
            add = true;
        }
        for (int64_t i = 0; x_gradient && i < here; ++i) {
            write_image(s, images + i * pixels_with_border * s.inputs,
                        x_gradient + (image + i) * s.height * s.width * s.inputs);
        }
    }
    kernel_gradient<F>(u, s.inputs, s.outputs, weight_gradient);
}

}  // namespace

bool built() { return true; }

template <class N>
void transform_forward(const float* weight, int64_t inputs, int64_t outputs, N* out) {
    pack_kernels<Forward, N>(weight, inputs, 9, outputs, 9 * inputs, out);
}

template <class N>
void transform_backward(const Shape& s, const float* weight, N* out) {
    const auto go = by_four(s.height, s.width) ? pack_kernels<Four, N> : pack_kernels<Two, N>;
    go(weight, s.outputs, 9 * s.inputs, s.inputs, 9, out);
}

template <class N>
void forward(const Shape& s, const bf16* x, const N* transformed, const float* bias, bf16* y, uint8_t* chosen) {
    constexpr int positions = Forward::patch * Forward::patch;
    const int panel = panel_of(s.outputs);
    const int64_t columns = panel * lanes, tiles = s.images * tiles_per_image(s, Forward::side);
    const int64_t v_plane = plane<N, N>(s.inputs), m_plane = plane<N, float>(columns);
    N* const v = at_least(operands<N>.patch, positions * v_plane);
    float* const m = at_least(workspace.products, positions * m_plane);
    for (int64_t first = 0; first < tiles; first += block<N>) {
        const int64_t count = std::min(block<N>, tiles - first);
        patches<Forward>(s, x, first, count, zero_row(s.inputs), v);
        for (int64_t k = 0; k < s.outputs; k += columns) {
            const N* u = transformed + positions * k * s.inputs;
            for (int p = 0; p < positions; ++p, u += columns * s.inputs) {
                multiply<N>(panel, count, {v + p * v_plane, s.inputs, terms<N>}, {u, terms<N> * columns},
                            s.inputs / terms<N>, m + p * m_plane, columns, false);
            }
            finish(s, m, m_plane, columns, k, bias, first, count, y, chosen);
        }
    }
}

template <class N>
void backward(const Shape& s, const bf16* x, const N* transformed, const bf16* y, const uint8_t* chosen,
              const bf16* y_gradient, bf16* x_gradient, float* weight_gradient, float* bias_gradient) {
    const auto go = by_four(s.height, s.width) ? backward_by<Four, N> : backward_by<Two, N>;
    go(s, x, transformed, y, chosen, y_gradient, x_gradient, weight_gradient, bias_gradient);
}

// ------------------------------------------------------------------------------------------------ few input channels

namespace {

// The 3x3 surroundings of each pixel of some rows of an image, as [pixel][3 * 3 * channels] at every `depth`; `out` has
// room for a vector more, and what lies between is undefined.
void surroundings(const Shape& s, const bf16* image, int64_t first_row, int64_t rows, int64_t depth, bf16* out) {
    const int64_t line = s.width * s.inputs;
    for (int64_t row = first_row; row < first_row + rows; ++row) {
        for (int64_t column = 0; column < s.width; ++column, out += depth) {
            const bool left = column > 0, right = column + 1 < s.width;
            const auto ends = __mmask16((1u << ((2 + right) * s.inputs)) - 1);  // within the image, of three pixels
            const auto there = __mmask16(left ? ends : ends & ~((1u << s.inputs) - 1));
            for (int64_t i = 0; i < 3; ++i) {  // in order: each writes zeros beyond its end
                const bool inside = row + i - 1 >= 0 && row + i - 1 < s.height;
                const bf16* from = image + (row + i - 1) * line + (column - 1) * s.inputs;  // masked lanes are not read
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 3 * i * s.inputs),
                                    _mm256_maskz_loadu_epi16(inside ? there : __mmask16(0), from));
            }
        }
    }
}

// The surroundings as numbers of products: what was read itself, or a copy.
bf16* as_numbers(bf16* around, int64_t, Aligned<bf16>&) { return around; }
float* as_numbers(bf16* around, int64_t count, Aligned<float>& room) {
    float* const out = at_least(room, count);
    for (int64_t i = 0; i < count; i += lanes) put(out + i, widen(around + i));
    return out;
}

template <class N>
struct Thin {
    int64_t depth, rows, pixels;  // of a pixel's surroundings, padded to whole pairs of vectors; of a block

    explicit Thin(const Shape& s) : depth((9 * s.inputs + 31) / 32 * 32), rows(std::max<int64_t>(1, block<N> / s.width)) {
        rows = std::min(rows, s.height);
        pixels = (rows * s.width + 1) / 2 * 2;
    }
};

}  // namespace

template <class N>
void thin_forward(const Shape& s, const bf16* x, const float* weight, const float* bias, bf16* y) {
    const Thin<N> size(s);
    const int panel = panel_of(s.outputs);
    const int64_t columns = panel * lanes, used = (9 * s.inputs + terms<N> - 1) / terms<N>;  // steps that are not padding
    bf16* const around = at_least(workspace.around, size.pixels * size.depth + 2 * lanes);
    N* const kernels = at_least(operands<N>.patch_rows, size.depth * s.outputs);
    float* const m = at_least(workspace.products, size.pixels * columns);
    std::fill_n(kernels, size.depth * s.outputs, N(0));
    for (int64_t k = 0; k < s.outputs; ++k) {
        for (int64_t i = 0; i < 9 * s.inputs; ++i) {  // i: (row, column, channel); the weights stand by channel first
            const float w = weight[(k * s.inputs + i % s.inputs) * 9 + i / s.inputs];
            const int64_t step = (k / columns * used + i / terms<N>) * columns + k % columns;
            put_one(kernels + step * terms<N> + i % terms<N>, w);
        }
    }
    const __m512 zero = _mm512_setzero_ps();
    for (int64_t n = 0; n < s.images; ++n) {
        for (int64_t row = 0; row < s.height; row += size.rows) {
            const int64_t rows = std::min(size.rows, s.height - row), pixels = rows * s.width;
            surroundings(s, x + n * s.height * s.width * s.inputs, row, rows, size.depth, around);
            const N* const a = as_numbers(around, pixels * size.depth, operands<N>.patch);
            for (int64_t k = 0; k < s.outputs; k += columns) {
                multiply<N>(panel, pixels, {a, size.depth, terms<N>}, {kernels + k * used * terms<N>, terms<N> * columns},
                            used, m, columns, false);
                bf16* const out = y + ((n * s.height + row) * s.width) * s.outputs + k;
                for (int64_t i = 0; i < pixels; ++i) {
                    for (int64_t c = 0; c < columns; c += lanes) {
                        const __m512 shift = bias ? _mm512_loadu_ps(bias + k + c) : zero;
                        const __m512 value = _mm512_loadu_ps(m + i * columns + c) + shift;
                        narrow(out + i * s.outputs + c, s.after == After::relu ? _mm512_max_ps(zero, value) : value);
                    }
                }
            }
        }
    }
}

template <class N>
void thin_backward(const Shape& s, const bf16* x, const bf16* y, const bf16* y_gradient, float* weight_gradient,
                   float* bias_gradient) {
    const Thin<N> size(s);
    const int panel = panel_of(s.outputs);
    const int64_t columns = panel * lanes, depth = 9 * s.inputs;
    bf16* const around = at_least(workspace.around, size.pixels * size.depth + 2 * lanes);
    N* const g = at_least(operands<N>.gradient, size.pixels * s.outputs);
    float* const u = at_least(workspace.kernels, depth * s.outputs);
    std::fill_n(bias_gradient, s.outputs, 0.0f);
    std::fill_n(u, depth * s.outputs, 0.0f);
    for (int64_t n = 0; n < s.images; ++n) {
        for (int64_t row = 0; row < s.height; row += size.rows) {
            const int64_t rows = std::min(size.rows, s.height - row), pixels = rows * s.width;
            const int64_t from = ((n * s.height + row) * s.width) * s.outputs;
            surroundings(s, x + n * s.height * s.width * s.inputs, row, rows, size.depth, around);
            for (int64_t k = 0; k < s.outputs; k += lanes) {
                __m512 sum = _mm512_setzero_ps();
                for (int64_t i = 0; i < pixels; ++i) {
                    const int64_t at = i * s.outputs + k;
                    const __m512 alive = alive_gradient(s, y_gradient + from + at, y + from + at);
                    put(g + at, alive);
                    sum += alive;
                }
                add_to(bias_gradient + k, sum);
            }
            N* const a = as_numbers(around, pixels * size.depth, operands<N>.patch);
            const N* const a_rows = by_rows(a, pixels, size.depth, operands<N>.patch_rows);
            const N* const g_rows = by_rows(g, pixels, s.outputs, operands<N>.gradient_rows);
            for (int64_t k = 0; k < s.outputs; k += columns) {
                multiply<N>(panel, depth, {a_rows, terms<N>, terms<N> * size.depth},
                            {g_rows + terms<N> * k, terms<N> * s.outputs}, (pixels + terms<N> - 1) / terms<N>, u + k,
                            s.outputs, true);
            }
        }
    }
    for (int64_t k = 0; k < s.outputs; ++k) {
        for (int64_t i = 0; i < depth; ++i) weight_gradient[(k * s.inputs + i % s.inputs) * 9 + i / s.inputs] = u[i * s.outputs + k];
    }
}

// --------------------------------------------------------------------------------------------------------- pooling

void pool(const Shape& s, const bf16* x, bf16* y, uint8_t* chosen) {
    const int64_t channels = s.outputs;
    for (int64_t t = 0; t < s.images * tiles_per_image(s, 2); ++t) {
        const Pixels at = pixels(s, 2, t);
        const bf16* corner = x + ((at.image * s.height + at.row) * s.width + at.column) * channels;
        for (int64_t k = 0; k < channels; k += lanes) {
            const bf16 *upper = corner + k, *lower = upper + s.width * channels;
            const __m512 window[2][2] = {{widen(upper), widen(upper + channels)}, {widen(lower), widen(lower + channels)}};
            largest(window, _mm512_setzero_ps(), y + t * channels + k, chosen + t * channels + k);
        }
    }
}

void unpool(const Shape& s, const bf16* y, const uint8_t* chosen, const bf16* y_gradient, bf16* x_gradient) {
    const int64_t channels = s.outputs;
    for (int64_t t = 0; t < s.images * tiles_per_image(s, 2); ++t) {
        const Pixels at = pixels(s, 2, t);
        bf16* corner = x_gradient + ((at.image * s.height + at.row) * s.width + at.column) * channels;
        for (int64_t k = 0; k < channels; k += lanes) {
            const int64_t from = t * channels + k;
            const __m256i g = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(y_gradient + from));
            const __m256i out = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(y + from));
            const __m128i which = _mm_loadu_si128(reinterpret_cast<const __m128i*>(chosen + from));
            const __mmask16 alive = _mm256_cmpneq_epi16_mask(out, _mm256_setzero_si256());
            for (int p = 0; p < 4; ++p) {
                const __mmask16 here = alive & _mm_cmpeq_epi8_mask(which, _mm_set1_epi8(char(p)));
                bf16* to = corner + ((p / 2) * s.width + p % 2) * channels + k;
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_maskz_mov_epi16(here, g));
            }
        }
    }
}

// --------------------------------------------------------------------------------------------------------- updates

namespace {

template <Rule rule>
void update_with(const Update& how, int64_t count, const void* gradient, bool narrow_gradient, const uint8_t* mask,
                 float* value, float* first, float* second, bf16* copy) {
    const float rate = rule == Rule::adam ? how.lr / how.correction1 : how.lr;
    const float inverse_root = 1.0f / std::sqrt(how.correction2);
    const float rest1 = 1.0f - how.beta1, rest2 = 1.0f - how.beta2;
    for (int64_t i = 0; i < count; i += lanes) {
        const int64_t left = count - i;
        const __mmask16 there = left >= lanes ? 0xffff : __mmask16((1u << left) - 1);
        const auto read = [&](const float* p) { return _mm512_maskz_loadu_ps(there, p + i); };
        __m512 g;
        if (narrow_gradient) {
            const __m256i bits = _mm256_maskz_loadu_epi16(there, static_cast<const bf16*>(gradient) + i);
            g = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
        } else {
            g = read(static_cast<const float*>(gradient));
        }
        __m512 w = read(value);
        g = g + all(how.decay) * w;
        if (mask) {
            const __m128i alive = _mm_maskz_loadu_epi8(there, mask + i);
            g = _mm512_maskz_mov_ps(_mm_test_epi8_mask(alive, alive), g);
        }
        if (rule == Rule::momentum) {
            g = all(how.momentum) * read(first) + g;
            _mm512_mask_storeu_ps(first + i, there, g);
        }
        if (rule == Rule::adam) {
            const __m512 m = all(how.beta1) * read(first) + all(rest1) * g;
            const __m512 v = all(how.beta2) * read(second) + all(rest2) * g * g;
            _mm512_mask_storeu_ps(first + i, there, m);
            _mm512_mask_storeu_ps(second + i, there, v);
            g = m / (_mm512_sqrt_ps(v) * all(inverse_root) + all(how.epsilon));
        }
        w = w - all(rate) * g;
        _mm512_mask_storeu_ps(value + i, there, w);
        if (copy) _mm256_mask_storeu_epi16(copy + i, there, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(w)));
    }
}

}  // namespace

void update(const Update& how, int64_t count, const void* gradient, bool narrow, const uint8_t* mask, float* value,
            float* first, float* second, bf16* copy) {
    const auto go = how.rule == Rule::adam ? update_with<Rule::adam>
                    : how.rule == Rule::momentum ? update_with<Rule::momentum>
                                                 : update_with<Rule::sgd>;
    go(how, count, gradient, narrow, mask, value, first, second, copy);
}

}  // namespace lth::conv

#else

namespace lth::conv {

bool built() { return false; }
template <class N>
void transform_forward(const float*, int64_t, int64_t, N*) {}
template <class N>
void transform_backward(const Shape&, const float*, N*) {}
template <class N>
void forward(const Shape&, const bf16*, const N*, const float*, bf16*, uint8_t*) {}
template <class N>
void backward(const Shape&, const bf16*, const N*, const bf16*, const uint8_t*, const bf16*, bf16*, float*, float*) {}
template <class N>
void thin_forward(const Shape&, const bf16*, const float*, const float*, bf16*) {}
template <class N>
void thin_backward(const Shape&, const bf16*, const bf16*, const bf16*, float*, float*) {}
void pool(const Shape&, const bf16*, bf16*, uint8_t*) {}
void unpool(const Shape&, const bf16*, const uint8_t*, const bf16*, bf16*) {}
void update(const Update&, int64_t, const void*, bool, const uint8_t*, float*, float*, float*, bf16*) {}

}  // namespace lth::conv

#endif

namespace lth::conv {

#define LTH_PRODUCTS_OF(N)                                                                                             \
    template void transform_forward(const float*, int64_t, int64_t, N*);                                               \
    template void transform_backward(const Shape&, const float*, N*);                                                  \
    template void forward(const Shape&, const bf16*, const N*, const float*, bf16*, uint8_t*);                         \
    template void backward(const Shape&, const bf16*, const N*, const bf16*, const uint8_t*, const bf16*, bf16*,       \
                           float*, float*);                                                                            \
    template void thin_forward<N>(const Shape&, const bf16*, const float*, const float*, bf16*);                       \
    template void thin_backward<N>(const Shape&, const bf16*, const bf16*, const bf16*, float*, float*);
LTH_PRODUCTS_OF(bf16)
LTH_PRODUCTS_OF(float)

}  // namespace lth::conv
