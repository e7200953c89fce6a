// Loads and stores of the lanes in a mask; other lanes are neither read nor written.
#pragma once

#include "products.hpp"
#include "shared/sanitizer.hpp"

namespace lth::conv {

namespace {

template <class T>
inline void touch_lanes(const T* p, __mmask16 there) {
    if (!there) return;
    const int first = __builtin_ctz(there), last = 31 - __builtin_clz(there);
    touch(p + first, (last - first + 1) * sizeof(T));
}

inline __m512 load(__mmask16 there, const float* p) {
    touch_lanes(p, there);
    return _mm512_maskz_loadu_ps(there, p);
}

inline __m256i load(__mmask16 there, const bf16* p) {
    touch_lanes(p, there);
    return _mm256_maskz_loadu_epi16(there, p);
}

inline __m128i load(__mmask16 there, const uint8_t* p) {
    touch_lanes(p, there);
    return _mm_maskz_loadu_epi8(there, p);
}

inline void store(float* p, __mmask16 there, __m512 values) {
    touch_lanes(p, there);
    _mm512_mask_storeu_ps(p, there, values);
}

inline void store(bf16* p, __mmask16 there, __m256i values) {
    touch_lanes(p, there);
    _mm256_mask_storeu_epi16(p, there, values);
}

}  // namespace

}  // namespace lth::conv
