// Tiles of an image, with internal linkage, for files compiled with AVX512_BF16.
#pragma once

#include "products.hpp"

namespace lth::conv {

namespace {

// Tiles per block: their patches and products stay in the cache.
template <class N>
constexpr int64_t block = 96 / int64_t(sizeof(N) / sizeof(bf16));

inline int64_t tiles_per_image(const Shape& s, int64_t side) { return (s.height / side) * (s.width / side); }

struct Pixels {
    int64_t image, row, column;  // position of the upper left corner of an output tile
};

inline Pixels pixels(const Shape& s, int64_t side, int64_t tile) {
    const int64_t across = s.width / side, per_image = tiles_per_image(s, side), inside = tile % per_image;
    return {tile / per_image, side * (inside / across), side * (inside % across)};
}

// ReLU of a window's maximum plus `shift`, and the position of the maximum.
inline void largest(const __m512 (&window)[2][2], __m512 shift, bf16* y, uint8_t* chosen) {
    __m512 best = window[0][0];
    __m128i which = _mm_setzero_si128();
    for (int p = 1; p < 4; ++p) {
        const __m512 rival = window[p / 2][p % 2];
        // NaN wins, so that it is visible in the loss
        const __mmask16 better = _mm512_cmp_ps_mask(rival, best, _CMP_GT_OQ) | _mm512_cmp_ps_mask(rival, rival, _CMP_UNORD_Q);
        best = _mm512_mask_mov_ps(best, better, rival);
        which = _mm_mask_mov_epi8(which, better, _mm_set1_epi8(char(p)));
    }
    narrow(y, _mm512_max_ps(_mm512_setzero_ps(), best + shift));  // for NaN and a number, max returns the second
    _mm_storeu_si128(reinterpret_cast<__m128i*>(chosen), which);
}

}  // namespace

}  // namespace lth::conv
