#include "thin.hpp"

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)

#include "masked.hpp"
#include "tiles.hpp"

namespace lth::conv {

namespace {

struct Workspace {
    Aligned<bf16> around;
    Aligned<float> products, kernels;
};

template <class N>
struct Operands {
    Aligned<N> patch, kernels, gradient, patch_rows, gradient_rows;
};

thread_local Workspace workspace;
template <class N>
thread_local Operands<N> operands;

// The 3x3 neighbourhood of each pixel in some rows of an image, as [pixel][3 * 3 * channels] at every `depth`; `out`
// has room for one more vector, and the gaps are undefined.
void surroundings(const Shape& s, const bf16* image, int64_t first_row, int64_t rows, int64_t depth, bf16* out) {
    const int64_t line = s.width * s.inputs;
    for (int64_t row = first_row; row < first_row + rows; ++row) {
        for (int64_t column = 0; column < s.width; ++column, out += depth) {
            const bool left = column > 0, right = column + 1 < s.width;
            const auto ends = __mmask16((1u << ((2 + right) * s.inputs)) - 1);  // of the three pixels, those inside the image
            const auto there = __mmask16(left ? ends : ends & ~((1u << s.inputs) - 1));
            for (int64_t i = 0; i < 3; ++i) {  // in order, because each writes zeros beyond its end
                const bool inside = row + i - 1 >= 0 && row + i - 1 < s.height;
                const bf16* from = image + (row + i - 1) * line + (column - 1) * s.inputs;  // masked lanes are not read
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 3 * i * s.inputs),
                                    load(inside ? there : __mmask16(0), from));
            }
        }
    }
}

// The neighbourhoods as operands of products: the data themselves, or a copy.
bf16* as_numbers(bf16* around, int64_t, Aligned<bf16>&) { return around; }
float* as_numbers(bf16* around, int64_t count, Aligned<float>& room) {
    float* const out = at_least(room, count);
    for (int64_t i = 0; i < count; i += lanes) put(out + i, widen(around + i));
    return out;
}

template <class N>
struct Thin {
    int64_t depth, rows, pixels;  // of a pixel's neighbourhood, padded to pairs of vectors; of a block

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
    N* const kernels = at_least(operands<N>.kernels, size.depth * s.outputs);
    float* const m = at_least(workspace.products, size.pixels * columns);
    std::fill_n(kernels, size.depth * s.outputs, N(0));
    for (int64_t k = 0; k < s.outputs; ++k) {
        for (int64_t i = 0; i < 9 * s.inputs; ++i) {  // i: (row, column, channel); in the weights the channel comes first
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

}  // namespace lth::conv

#else

namespace lth::conv {

template <class N>
void thin_forward(const Shape&, const bf16*, const float*, const float*, bf16*) {}
template <class N>
void thin_backward(const Shape&, const bf16*, const bf16*, const bf16*, float*, float*) {}

}  // namespace lth::conv

#endif

namespace lth::conv {

#define LTH_PRODUCTS_OF(N)                                                                                             \
    template void thin_forward<N>(const Shape&, const bf16*, const float*, const float*, bf16*);                       \
    template void thin_backward<N>(const Shape&, const bf16*, const bf16*, const bf16*, float*, float*);
LTH_PRODUCTS_OF(bf16)
LTH_PRODUCTS_OF(float)

}  // namespace lth::conv
