#include "sparse_linear.hpp"

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)

#include "masked.hpp"

namespace lth::conv {

namespace {

constexpr int vectors = 4;
constexpr int64_t strip = lanes * vectors;  // examples per strip

inline float widened(bf16 x) {
    const uint32_t bits = uint32_t(x) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// Convert [examples][width] from column `first` on to [column][strip], with zeros beyond the examples.
void turn(const bf16* in, int64_t examples, int64_t width, int64_t first, int64_t columns, bf16* out) {
    constexpr int64_t tile = 32;
    if (examples < strip) std::fill_n(out, columns * strip, bf16(0));
    for (int64_t c = 0; c < columns; c += tile) {
        const int64_t end = std::min(columns, c + tile);
        for (int64_t e = 0; e < examples; ++e) {
            for (int64_t at = c; at < end; ++at) out[at * strip + e] = in[e * width + first + at];
        }
    }
}

// Convert [column][strip] floats to bfloat16 [examples][width] from column `first` on.
void turn_back(const float* in, int64_t examples, int64_t width, int64_t first, int64_t columns, bf16* out) {
    constexpr int64_t tile = 16;
    alignas(64) bf16 narrow[tile][strip];
    for (int64_t c = 0; c < columns; c += tile) {
        const int64_t here = std::min(tile, columns - c);
        for (int64_t at = 0; at < here; ++at) {
            for (int v = 0; v < vectors; ++v) {
                const auto x = _mm512_cvtneps_pbh(_mm512_loadu_ps(in + (c + at) * strip + v * lanes));
                _mm256_store_si256(reinterpret_cast<__m256i*>(narrow[at] + v * lanes), reinterpret_cast<__m256i>(x));
            }
        }
        for (int64_t e = 0; e < examples; ++e) {
            for (int64_t at = 0; at < here; ++at) out[e * width + first + c + at] = narrow[at][e];
        }
    }
}

thread_local Aligned<bf16> turned_inputs;
thread_local Aligned<float> turned_outputs, turned_gradient;

}  // namespace

void sparse_forward(const Sparse& s, int64_t examples, const bf16* x, const float* values, const float* bias, bf16* y) {
    bf16* const turned = at_least(turned_inputs, sparse_block * strip);
    float* const sum = at_least(turned_outputs, s.outputs * strip);
    for (int64_t first = 0; first < examples; first += strip) {
        const int64_t here = std::min(strip, examples - first);
        for (int64_t r = 0; r < s.outputs; ++r) std::fill_n(sum + r * strip, strip, bias ? bias[r] : 0.0f);
        const int64_t* end = s.ends;
        int64_t entry = 0;
        for (int64_t from = 0; from < s.inputs; from += sparse_block) {
            turn(x + first * s.inputs, here, s.inputs, from, std::min(sparse_block, s.inputs - from), turned);
            for (int64_t r = 0; r < s.outputs; ++r, ++end) {
                if (entry == *end) continue;
                __m512 total[vectors];
                for (int v = 0; v < vectors; ++v) total[v] = _mm512_loadu_ps(sum + r * strip + v * lanes);
                for (; entry < *end; ++entry) {
                    const __m512 w = _mm512_set1_ps(values[entry]);
                    const bf16* in = turned + s.columns[entry] * strip;
                    for (int v = 0; v < vectors; ++v) total[v] = _mm512_fmadd_ps(w, widen(in + v * lanes), total[v]);
                }
                for (int v = 0; v < vectors; ++v) _mm512_storeu_ps(sum + r * strip + v * lanes, total[v]);
            }
        }
        turn_back(sum, here, s.outputs, 0, s.outputs, y + first * s.outputs);
    }
}

void sparse_backward(const Sparse& s, int64_t examples, const bf16* x, const float* values, const bf16* y_gradient,
                     bf16* x_gradient, float* value_gradients) {
    bf16* const turned = at_least(turned_inputs, sparse_block * strip);
    float* const gradient = at_least(turned_gradient, sparse_block * strip);
    float* const outputs = at_least(turned_outputs, s.outputs * strip);
    for (int64_t first = 0; first < examples; first += strip) {
        const int64_t here = std::min(strip, examples - first);
        std::fill_n(outputs, s.outputs * strip, 0.0f);
        for (int64_t e = 0; e < here; ++e) {
            for (int64_t r = 0; r < s.outputs; ++r) outputs[r * strip + e] = widened(y_gradient[(first + e) * s.outputs + r]);
        }
        const int64_t* end = s.ends;
        int64_t entry = 0;
        for (int64_t from = 0; from < s.inputs; from += sparse_block) {
            const int64_t columns = std::min(sparse_block, s.inputs - from);
            turn(x + first * s.inputs, here, s.inputs, from, columns, turned);
            if (x_gradient) std::fill_n(gradient, columns * strip, 0.0f);
            for (int64_t r = 0; r < s.outputs; ++r, ++end) {
                __m512 d[vectors];
                for (int v = 0; v < vectors; ++v) d[v] = _mm512_loadu_ps(outputs + r * strip + v * lanes);
                for (; entry < *end; entry += lanes) {
                    const int count = int(std::min<int64_t>(lanes, *end - entry));
                    __m512 product[lanes];
                    for (int i = 0; i < lanes; ++i) {
                        if (i >= count) {
                            product[i] = _mm512_setzero_ps();
                            continue;
                        }
                        const int64_t at = s.columns[entry + i] * strip;
                        product[i] = d[0] * widen(turned + at);
                        for (int v = 1; v < vectors; ++v) product[i] = _mm512_fmadd_ps(d[v], widen(turned + at + v * lanes), product[i]);
                        if (!x_gradient) continue;
                        const __m512 w = _mm512_set1_ps(values[entry + i]);
                        for (int v = 0; v < vectors; ++v) {
                            float* to = gradient + at + v * lanes;
                            _mm512_storeu_ps(to, _mm512_fmadd_ps(w, d[v], _mm512_loadu_ps(to)));
                        }
                    }
                    const __mmask16 there = count == lanes ? 0xffff : __mmask16((1u << count) - 1);
                    __m512 total = sums_of(product);
                    if (first) total += load(there, value_gradients + entry);
                    store(value_gradients + entry, there, total);
                }
                entry = *end;
            }
            if (x_gradient) turn_back(gradient, here, s.inputs, from, columns, x_gradient + first * s.inputs);
        }
    }
}

}  // namespace lth::conv

#else

namespace lth::conv {

void sparse_forward(const Sparse&, int64_t, const bf16*, const float*, const float*, bf16*) {}
void sparse_backward(const Sparse&, int64_t, const bf16*, const float*, const bf16*, bf16*, float*) {}

}  // namespace lth::conv

#endif
