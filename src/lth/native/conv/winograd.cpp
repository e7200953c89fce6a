#include "winograd.hpp"

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)

#include "tiles.hpp"
#include "transforms.hpp"

namespace lth::conv {

namespace {

// Stride between positions of a block of T: one cache line more than needed, so that the sixteen do not share a cache
// set.
template <class N, class T>
constexpr int64_t plane(int64_t channels) { return block<N> * channels + int64_t(64 / sizeof(T)); }

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

// Bias, pooling and ReLU of `columns` channels from `first_channel` on, for the tiles first to first + count.
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

// The gradient of a tile's pixels before pooling and ReLU; also sums the bias gradient.
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

// Add B m B' of each tile to its patch of the images, which have a border of one pixel.
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

// Kernels as the right operand of products that sum over `depth` channels: [panel][position][step][column][term].
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
    Aligned<bf16> zeros;
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

// The forward pass uses the smaller tiles, whose error is a third; the backward pass the larger ones, if they divide
// the image.
using Forward = Two;

bool by_four(int64_t height, int64_t width) { return height % 4 == 0 && width % 4 == 0; }
// Add the products of a block's gradients and the kernels to the gradients of the images from `image` on.
template <class F, class N>
void add_to_images(const Shape& s, const N* transformed, const N* d, int64_t first, int64_t count, int64_t image,
                   float* images) {
    constexpr int positions = F::patch * F::patch;
    const int panel = panel_of(s.inputs);
    const int64_t columns = panel * lanes, d_plane = plane<N, N>(s.outputs), m_plane = plane<N, float>(columns);
    float* const m = at_least(workspace.products, positions * m_plane);
    for (int64_t c = 0; c < s.inputs; c += columns) {
        const N* w = transformed + positions * c * s.outputs;
        for (int p = 0; p < positions; ++p, w += columns * s.outputs) {
            multiply<N>(panel, count, {d + p * d_plane, s.outputs, terms<N>}, {w, terms<N> * columns},
                        s.outputs / terms<N>, m + p * m_plane, columns, false);
        }
        scatter<F>(s, m, m_plane, columns, c, first, count, image, images);
    }
}

// Add the products of a block's patches and its gradients to u[position][input][output], or initialise it.
template <class F, class N>
void add_to_kernels(const Shape& s, N* v, N* d, int64_t count, bool add, float* u) {
    constexpr int positions = F::patch * F::patch;
    const int panel = panel_of(s.outputs);
    const int64_t columns = panel * lanes, v_plane = plane<N, N>(s.inputs), d_plane = plane<N, N>(s.outputs);
    for (int p = 0; p < positions; ++p) {  // a block has an even number of tiles, so there is room for a row of zeros
        const N* const vp = by_rows(v + p * v_plane, count, s.inputs, operands<N>.patch_rows);
        const N* const dp = by_rows(d + p * d_plane, count, s.outputs, operands<N>.gradient_rows);
        for (int64_t k = 0; k < s.outputs; k += columns) {
            multiply<N>(panel, s.inputs, {vp, terms<N>, terms<N> * s.inputs}, {dp + terms<N> * k, terms<N> * s.outputs},
                        (count + terms<N> - 1) / terms<N>, u + p * s.inputs * s.outputs + k, s.outputs, add);
        }
    }
}

template <class F, class N>
void backward_by(const Shape& s, const bf16* x, const N* transformed, const bf16* y, const uint8_t* chosen,
                 const bf16* y_gradient, bf16* x_gradient, float* weight_gradient, float* bias_gradient) {
    constexpr int positions = F::patch * F::patch;
    const int64_t per_image = tiles_per_image(s, F::side), pixels_with_border = (s.height + 2) * (s.width + 2);
    const int64_t group = std::max<int64_t>(1, block<N> / per_image);  // images whose gradients are computed together
    N* const v = at_least(operands<N>.patch, positions * plane<N, N>(s.inputs));
    N* const d = at_least(operands<N>.gradient, positions * plane<N, N>(s.outputs));
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
            if (x_gradient) add_to_images<F>(s, transformed, d, first, count, image, images);
            add_to_kernels<F>(s, v, d, count, add, u);
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

}  // namespace lth::conv

#endif

namespace lth::conv {

#define LTH_PRODUCTS_OF(N)                                                                                             \
    template void transform_forward(const float*, int64_t, int64_t, N*);                                               \
    template void transform_backward(const Shape&, const float*, N*);                                                  \
    template void forward(const Shape&, const bf16*, const N*, const float*, bf16*, uint8_t*);                         \
    template void backward(const Shape&, const bf16*, const N*, const bf16*, const uint8_t*, const bf16*, bf16*,       \
                           float*, float*);
LTH_PRODUCTS_OF(bf16)
LTH_PRODUCTS_OF(float)

}  // namespace lth::conv
