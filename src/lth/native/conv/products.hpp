// Matrix products of bfloat16 pairs or floats, with internal linkage, for files compiled with AVX512_BF16.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12 warns about its own header
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "shared/aligned.hpp"
#include "shape.hpp"

namespace lth::conv {

namespace {

constexpr int lanes = 16;  // floats per vector

// Products have operands N: pairs of bfloat16 that one instruction multiplies and adds, or single floats.
template <class N>
constexpr int terms = std::is_same_v<N, bf16> ? 2 : 1;

inline __m512 all(float x) { return _mm512_set1_ps(x); }

inline __m512 widened(__m256i bits) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16)); }

inline __m512 widen(const bf16* p) { return widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }

inline void narrow(bf16* p, __m512 x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
}

// Transpose: lane j of x[i] becomes lane i of x[j].
inline void transpose(__m512 (&x)[lanes]) {
    __m512d y[lanes];  // in groups of four: [group of rows][column of each group of lanes]
    for (int q = 0; q < 4; ++q) {
        const __m512 *const a = x + 4 * q, ab = _mm512_unpacklo_ps(a[0], a[1]), cd = _mm512_unpacklo_ps(a[2], a[3]),
                     AB = _mm512_unpackhi_ps(a[0], a[1]), CD = _mm512_unpackhi_ps(a[2], a[3]);
        y[4 * q] = _mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
        y[4 * q + 1] = _mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
        y[4 * q + 2] = _mm512_unpacklo_pd(_mm512_castps_pd(AB), _mm512_castps_pd(CD));
        y[4 * q + 3] = _mm512_unpackhi_pd(_mm512_castps_pd(AB), _mm512_castps_pd(CD));
    }
    for (int i = 0; i < 4; ++i) {
        const __m512 a = _mm512_castpd_ps(y[i]), b = _mm512_castpd_ps(y[4 + i]), c = _mm512_castpd_ps(y[8 + i]),
                     d = _mm512_castpd_ps(y[12 + i]);
        const __m512 even = _mm512_shuffle_f32x4(a, b, 0x88), odd = _mm512_shuffle_f32x4(a, b, 0xdd),
                     EVEN = _mm512_shuffle_f32x4(c, d, 0x88), ODD = _mm512_shuffle_f32x4(c, d, 0xdd);
        x[i] = _mm512_shuffle_f32x4(even, EVEN, 0x88);
        x[4 + i] = _mm512_shuffle_f32x4(odd, ODD, 0x88);
        x[8 + i] = _mm512_shuffle_f32x4(even, EVEN, 0xdd);
        x[12 + i] = _mm512_shuffle_f32x4(odd, ODD, 0xdd);
    }
}

// Lane i of the result is the sum of the lanes of x[i].
inline __m512 sums_of(const __m512 (&x)[lanes]) {
    __m512 quad[4];
    for (int q = 0; q < 4; ++q) {
        const __m512 *a = x + 4 * q, ab = _mm512_unpacklo_ps(a[0], a[1]) + _mm512_unpackhi_ps(a[0], a[1]),
                     cd = _mm512_unpacklo_ps(a[2], a[3]) + _mm512_unpackhi_ps(a[2], a[3]);
        const __m512d l = _mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd)),
                      h = _mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
        quad[q] = _mm512_castpd_ps(l) + _mm512_castpd_ps(h);
    }
    const __m512 low = _mm512_shuffle_f32x4(quad[0], quad[1], 0x44) + _mm512_shuffle_f32x4(quad[0], quad[1], 0xee);
    const __m512 high = _mm512_shuffle_f32x4(quad[2], quad[3], 0x44) + _mm512_shuffle_f32x4(quad[2], quad[3], 0xee);
    return _mm512_shuffle_f32x4(low, high, 0x88) + _mm512_shuffle_f32x4(low, high, 0xdd);
}

template <class T>
T* at_least(Aligned<T>& array, int64_t size) {
    if (int64_t(array.size()) < size) array.resize(size);
    return array.data();
}

inline __m512i rounded(__m512 x) {  // in the lower half of each lane
    return _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
}

// Lane l contains both values as bfloat16, `even` in its lower half.
inline __m512i pairs(__m512 even, __m512 odd) {
    return _mm512_or_si512(rounded(even), _mm512_slli_epi32(rounded(odd), 16));
}

inline void put(bf16* p, __m512 x) { narrow(p, x); }
inline void put(float* p, __m512 x) { _mm512_storeu_ps(p, x); }

inline void put_one(bf16* p, float x) {
    const auto narrowed = _mm_cvtneps_pbh(_mm_set_ss(x));
    std::memcpy(p, &narrowed, sizeof(bf16));
}
inline void put_one(float* p, float x) { *p = x; }

inline __m512 alive_gradient(const Shape& s, const bf16* gradient, const bf16* y) {
    const __m512 g = widen(gradient);
    if (s.after == After::nothing) return g;
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(widen(y), _mm512_setzero_ps(), _CMP_NEQ_UQ), g);
}

inline void add_to(float* sum, __m512 x) { _mm512_storeu_ps(sum, _mm512_loadu_ps(sum) + x); }

// Rows r of A and steps s of one term or a pair of terms: A(r, s) is at a[r * row + s * step].
template <class N>
struct Left {
    const N* a;
    int64_t row, step;
};

// B(s, column) is a term or a pair; the columns of a step are contiguous.
template <class N>
struct Right {
    const N* b;
    int64_t step;
};

// A vector of terms or pairs, and the sum of its products.
inline __m512 load(const float* p) { return _mm512_loadu_ps(p); }
inline __m512bh load(const bf16* p) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(p)); }
inline __m512 everywhere(const float* p) { return _mm512_set1_ps(*p); }
inline __m512bh everywhere(const bf16* p) {
    int32_t pair;
    std::memcpy(&pair, p, 4);
    return reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
}
inline __m512 add_product(__m512 sum, __m512 a, __m512 b) { return _mm512_fmadd_ps(a, b, sum); }
inline __m512 add_product(__m512 sum, __m512bh a, __m512bh b) { return _mm512_dpbf16_ps(sum, a, b); }

// The sums stay in registers only if every loop over them is unrolled.
template <int R, int V, class N>
void product(Left<N> left, Right<N> right, int64_t steps, float* out, int64_t out_row, bool add) {
    __m512 sum[R][V];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) sum[r][v] = _mm512_setzero_ps();
    }
    for (int64_t s = 0; s < steps; ++s) {
        decltype(load(right.b)) b[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) b[v] = load(right.b + s * right.step + v * terms<N> * lanes);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const auto a = everywhere(left.a + r * left.row + s * left.step);
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) sum[r][v] = add_product(sum[r][v], a, b[v]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            float* to = out + r * out_row + v * lanes;
            _mm512_storeu_ps(to, add ? _mm512_loadu_ps(to) + sum[r][v] : sum[r][v]);
        }
    }
}

template <int V, class N>
void multiply(int64_t rows, Left<N> left, Right<N> right, int64_t steps, float* out, int64_t out_row, bool add) {
    constexpr int R = 6;  // 6 x 4 sums leave 8 of 32 registers for operands
    for (; rows >= R; rows -= R, left.a += R * left.row, out += R * out_row) product<R, V>(left, right, steps, out, out_row, add);
    switch (rows) {
        case 5: return product<5, V>(left, right, steps, out, out_row, add);
        case 4: return product<4, V>(left, right, steps, out, out_row, add);
        case 3: return product<3, V>(left, right, steps, out, out_row, add);
        case 2: return product<2, V>(left, right, steps, out, out_row, add);
        case 1: return product<1, V>(left, right, steps, out, out_row, add);
        default: return;
    }
}

// Columns in panels of `panel` vectors, so that a panel is read sequentially.
template <class N>
void multiply(int panel, int64_t rows, Left<N> left, Right<N> right, int64_t steps, float* out, int64_t out_row, bool add) {
    if (panel == 4) multiply<4>(rows, left, right, steps, out, out_row, add);
    if (panel == 2) multiply<2>(rows, left, right, steps, out, out_row, add);
    if (panel == 1) multiply<1>(rows, left, right, steps, out, out_row, add);
}

// Rows 2 i and 2 i + 1 of [rows, columns] become one row of pairs.
inline void pair_rows(const bf16* in, int64_t rows, int64_t columns, bf16* out) {
    alignas(64) static const uint16_t order[2][32] = {
        {0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47},
        {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55, 24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63}};
    const __m512i low = _mm512_load_si512(order[0]), high = _mm512_load_si512(order[1]);
    for (int64_t r = 0; r < rows; r += 2, in += 2 * columns, out += 2 * columns) {
        int64_t c = 0;
        for (; c + 32 <= columns; c += 32) {
            const __m512i a = _mm512_loadu_si512(in + c), b = _mm512_loadu_si512(in + columns + c);
            _mm512_storeu_si512(out + 2 * c, _mm512_permutex2var_epi16(a, low, b));
            _mm512_storeu_si512(out + 2 * c + 32, _mm512_permutex2var_epi16(a, high, b));
        }
        for (; c < columns; ++c) out[2 * c] = in[c], out[2 * c + 1] = in[columns + c];
    }
}

// [rows, columns] as the terms of products that sum over the rows; an odd number of rows is padded with zeros for
// pairs.
inline const float* by_rows(float* in, int64_t, int64_t, Aligned<float>&) { return in; }
inline const bf16* by_rows(bf16* in, int64_t rows, int64_t columns, Aligned<bf16>& room) {
    if (rows % 2) std::fill_n(in + rows * columns, columns, bf16(0));
    bf16* const out = at_least(room, (rows + 1) * columns);
    pair_rows(in, rows + rows % 2, columns, out);
    return out;
}

}  // namespace

}  // namespace lth::conv
