#include "pooling.hpp"

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)

#include "tiles.hpp"

namespace lth::conv {

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

}  // namespace lth::conv

#else

namespace lth::conv {

void pool(const Shape&, const bf16*, bf16*, uint8_t*) {}
void unpool(const Shape&, const bf16*, const uint8_t*, const bf16*, bf16*) {}

}  // namespace lth::conv

#endif
