// The widest float vector of the instruction set for which this file is compiled, and the operations on it that GCC's
// and Clang's vector extensions lack.
//
// Everything included by the kernels has internal linkage: the same source is compiled once per instruction set into
// one library, and the linker could take a shared inline function from an object that this processor cannot run.
#pragma once

#include <cstdint>
#include <utility>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#else
#include <cmath>
#endif

#define LTH_INLINE inline __attribute__((always_inline))

namespace {

#if defined(__AVX512F__)
constexpr int W = 16;         // floats per vector
constexpr int row_tile = 6;   // a tile of 6 x 4 accumulators leaves 8 of 32 registers for operands
constexpr int column_tile = 4;
#elif defined(__AVX2__)
constexpr int W = 8;
constexpr int row_tile = 3;
constexpr int column_tile = 2;
#elif defined(__aarch64__)
constexpr int W = 4;
constexpr int row_tile = 6;
constexpr int column_tile = 4;
#else
constexpr int W = 4;
constexpr int row_tile = 2;
constexpr int column_tile = 2;
#endif

constexpr int V = 4;          // vectors per strip of examples
constexpr int lanes = V * W;  // examples per strip

typedef float Vec __attribute__((vector_size(4 * W), may_alias));
typedef int32_t Int __attribute__((vector_size(4 * W), may_alias));
typedef uint32_t Uint __attribute__((vector_size(4 * W), may_alias));
typedef uint8_t Bytes __attribute__((vector_size(16), may_alias));

LTH_INLINE Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
LTH_INLINE void store(float* p, Vec x) { *reinterpret_cast<Vec*>(p) = x; }
LTH_INLINE Vec all(float x) { return x - Vec{}; }  // 0 + x would turn -0 into 0

// Four numbers, each in all lanes: one load and four shuffles use fewer load ports than four loads.
LTH_INLINE void spread(const float* p, Vec (&x)[4]) {
#if defined(__AVX512F__)
    const __m512 four = _mm512_maskz_broadcast_f32x4(__mmask16(-1), _mm_loadu_ps(p));
    constexpr __mmask16 every = 0xffff;  // GCC warns about its own header if no mask is given
    x[0] = Vec(_mm512_maskz_permute_ps(every, four, 0x00)), x[1] = Vec(_mm512_maskz_permute_ps(every, four, 0x55));
    x[2] = Vec(_mm512_maskz_permute_ps(every, four, 0xaa)), x[3] = Vec(_mm512_maskz_permute_ps(every, four, 0xff));
#else
    for (int j = 0; j < 4; ++j) x[j] = all(p[j]);
#endif
}

template <int... L>
LTH_INLINE Int count_up(std::integer_sequence<int, L...>) { return Int{L...}; }
using Lanes = std::make_integer_sequence<int, W>;

#if defined(__clang__)
#define LTH_SHUFFLE(type, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define LTH_SHUFFLE(type, a, b, ...) __builtin_shuffle(a, b, type{__VA_ARGS__})
#endif

LTH_INLINE Vec root(Vec x) {
#if defined(__AVX512F__)
    return Vec(_mm512_maskz_sqrt_ps(__mmask16(-1), __m512(x)));
#elif defined(__AVX2__)
    return Vec(_mm256_sqrt_ps(__m256(x)));
#elif defined(__SSE2__)
    return Vec(_mm_sqrt_ps(__m128(x)));
#elif defined(__aarch64__)
    return Vec(vsqrtq_f32(float32x4_t(x)));
#else
    for (int l = 0; l < W; ++l) x[l] = std::sqrt(x[l]);
    return x;
#endif
}

// Whether any lane is not 0: 1 or 0.
LTH_INLINE int32_t any_of(Int x) {
#if defined(__AVX512F__)
    return _mm512_test_epi32_mask(__m512i(x), __m512i(x)) != 0;
#elif defined(__AVX2__)
    return !_mm256_testz_si256(__m256i(x), __m256i(x));
#else
    int32_t any = 0;
    for (int l = 0; l < W; ++l) any |= x[l];
    return any != 0;
#endif
}

// x where the lane's bit is set, else 0 (even if x is NaN).
LTH_INLINE Vec keep(uint32_t bits, Vec x) {
#if defined(__AVX512F__)
    return Vec(_mm512_maskz_mov_ps(__mmask16(bits), __m512(x)));
#else
    const Int lane = (Int{} + 1) << count_up(Lanes{});
    return ((Int{} + int32_t(bits)) & lane) != 0 ? x : Vec{};
#endif
}

// Add lane pairs of distance S of a and b: lanes without bit S come from a, the others from b.
template <int S, int... L>
LTH_INLINE Vec fold(Vec a, Vec b, std::integer_sequence<int, L...>) {
    return LTH_SHUFFLE(Int, a, b, ((L & S) ? L + W : L)...) +
           LTH_SHUFFLE(Int, a, b, ((L & S) ? (L ^ S) + W : (L ^ S))...);
}

// Lane 4 k + j of the result of sum_of_quads is the sum of the lanes of vector j of quad k: four vectors become one
// (quad_sums), and W / 4 of these become the sums of all their lanes.
LTH_INLINE Vec quad_sums(Vec a, Vec b, Vec c, Vec d) {
    return fold<2>(fold<1>(a, b, Lanes{}), fold<1>(c, d, Lanes{}), Lanes{});
}

LTH_INLINE Vec sum_of_quads(const Vec* quad) {
    if constexpr (W == 4) return quad[0];
    if constexpr (W == 8) return fold<W / 2>(quad[0], quad[1], Lanes{});
    if constexpr (W == 16) {
        return fold<W / 2>(fold<W / 4>(quad[0], quad[1], Lanes{}), fold<W / 4>(quad[2], quad[3], Lanes{}), Lanes{});
    }
}

// Sixteen bytes as floats byte / 255, rounded like a division: 1/255 in two parts gives a single fused rounding (exact
// for all 256 values, which is tested); without fused multiply-add, the division itself.
LTH_INLINE void store_scaled(float* out, Bytes bytes) {
    constexpr float high = 1.0f / 255.0f, low = float(1.0 / 255.0 - double(high));
#if defined(__AVX512F__)
    constexpr __mmask16 every = 0xffff;  // GCC warns about its own header if no mask is given
    const __m512 x = _mm512_maskz_cvtepi32_ps(every, _mm512_maskz_cvtepu8_epi32(every, __m128i(bytes)));
    store(out, Vec(_mm512_fmadd_ps(x, _mm512_set1_ps(high), _mm512_mul_ps(x, _mm512_set1_ps(low)))));
#elif defined(__AVX2__)
    for (int half = 0; half < 2; ++half) {
        const __m128i eight = half ? _mm_srli_si128(__m128i(bytes), 8) : __m128i(bytes);
        const __m256 x = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(eight));
        store(out + 8 * half, Vec(_mm256_fmadd_ps(x, _mm256_set1_ps(high), _mm256_mul_ps(x, _mm256_set1_ps(low)))));
    }
#else
    (void)high, (void)low;
    for (int l = 0; l < 16; ++l) out[l] = float(bytes[l]) / 255.0f;
#endif
}

}  // namespace
