#include "update.hpp"

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)

#include <cmath>

#include "masked.hpp"

namespace lth::conv {

namespace {

template <Optimizer optimizer>
void update_with(const Update& how, int64_t count, const void* gradient, bool narrow_gradient, const uint8_t* mask,
                 float* value, float* first, float* second, bf16* copy) {
    constexpr bool adam = is_adam(optimizer), nesterov = optimizer == Optimizer::nesterov;
    const float rate = adam ? how.lr / how.correction1 : how.lr, shrink = 1.0f - how.lr * how.decay;
    const float inverse_root = 1.0f / std::sqrt(how.correction2);
    const float rest1 = 1.0f - how.beta1, rest2 = 1.0f - how.beta2;
    for (int64_t i = 0; i < count; i += lanes) {
        const int64_t left = count - i;
        const __mmask16 there = left >= lanes ? 0xffff : __mmask16((1u << left) - 1);
        const auto read = [&](const float* p) { return load(there, p + i); };
        __m512 g;
        if (narrow_gradient) {
            const __m256i bits = load(there, static_cast<const bf16*>(gradient) + i);
            g = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
        } else {
            g = read(static_cast<const float*>(gradient));
        }
        __m512 w = read(value);
        if constexpr (decouples_decay(optimizer)) {
            w = all(shrink) * w;
        } else {
            g = g + all(how.decay) * w;
        }
        if (mask) {
            const __m128i alive = load(there, mask + i);
            g = _mm512_maskz_mov_ps(_mm_test_epi8_mask(alive, alive), g);
        }
        if constexpr (optimizer == Optimizer::momentum || nesterov) {
            const __m512 m = all(how.momentum) * read(first) + g;
            store(first + i, there, m);
            g = nesterov ? g + all(how.momentum) * m : m;
        }
        if constexpr (adam) {
            const __m512 m = all(how.beta1) * read(first) + all(rest1) * g;
            const __m512 v = all(how.beta2) * read(second) + all(rest2) * g * g;
            store(first + i, there, m);
            store(second + i, there, v);
            g = m / (_mm512_sqrt_ps(v) * all(inverse_root) + all(how.epsilon));
        }
        w = w - all(rate) * g;
        store(value + i, there, w);
        if (copy) store(copy + i, there, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(w)));
    }
}

}  // namespace

void update(const Update& how, int64_t count, const void* gradient, bool narrow, const uint8_t* mask, float* value,
            float* first, float* second, bf16* copy) {
    const auto go = [&](auto work) { work(how, count, gradient, narrow, mask, value, first, second, copy); };
    switch (how.optimizer) {
        case Optimizer::sgd: return go(update_with<Optimizer::sgd>);
        case Optimizer::momentum: return go(update_with<Optimizer::momentum>);
        case Optimizer::nesterov: return go(update_with<Optimizer::nesterov>);
        case Optimizer::adam: return go(update_with<Optimizer::adam>);
        case Optimizer::adamw: return go(update_with<Optimizer::adamw>);
    }
}

}  // namespace lth::conv

#else

namespace lth::conv {

void update(const Update&, int64_t, const void*, bool, const uint8_t*, float*, float*, float*, bf16*) {}

}  // namespace lth::conv

#endif
