// Operations between the matrix products: biases, ReLU, dropout, softmax cross-entropy.
#pragma once

#include <cmath>

#include "optimizer.hpp"

namespace {

using lth::Batch;
using lth::Dropout;

void fill(const float* bias, int32_t units, float* out) {
    for (int32_t u = 0; u < units; ++u)
        for (int v = 0; v < V; ++v) store(out + (ptrdiff_t(u) * V + v) * W, all(bias[u]));
}

// A bijection of 32-bit integers with good mixing ("lowbias32").
LTH_INLINE Uint mix(Uint x) {
    x ^= x >> 16;
    x *= 0x7feb352dU;
    x ^= x >> 15;
    x *= 0x846ca68bU;
    return x ^ (x >> 16);
}

LTH_INLINE Int survives(Uint element, const Dropout& dropout) {
    return Int(mix(mix(element ^ dropout.key0) + dropout.key1) >= dropout.threshold + Uint{});
}

// x < 0 ? 0 : x, not x > 0 ? x : 0, so that NaN is visible in the loss.
LTH_INLINE Vec relu(Vec x) { return x < 0.0f ? Vec{} : x; }

void activate(float* out, int32_t units, int32_t first_example, Dropout dropout) {
    const Uint lane = Uint(count_up(Lanes{}));
    for (int32_t u = 0; u < units; ++u) {
        for (int v = 0; v < V; ++v, out += W) {
            Vec x = relu(load(out));
            if (dropout.threshold != 0) {
                const Uint example = lane + uint32_t(first_example + v * W);
                x = survives(example * uint32_t(units) + uint32_t(u), dropout) ? x * dropout.scale : Vec{};
            }
            store(out, x);
        }
    }
}

// An activation is positive exactly if its unit was active and kept, because the scale is at least 1.
void deactivate(const float* activation, float* gradient, int32_t units, float scale) {
    for (ptrdiff_t i = 0; i < ptrdiff_t(units) * lanes; i += W) {
        store(gradient + i, load(activation + i) <= 0.0f ? Vec{} : load(gradient + i) * scale);
    }
}

// e to the x for x <= 0, within 2 units in the last place; 0 below the smallest normal float.
LTH_INLINE Vec exponential(Vec x) {
    const Vec shift = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    const Vec shifted = x * 1.44269504f + shift;
    const Vec n = shifted - shift;
    const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
    Vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    const Vec power = Vec((Int(shifted) << 23) + 0x3f800000);
    return x < -87.3f ? Vec{} : p * power;
}

// The gradients of a vector of examples without the label's own -scale; returns the largest logits and their sums.
LTH_INLINE void normalise(float* logits, int32_t classes, Vec scale, float* largest, float* total) {
    Vec most = load(logits), sum = {};
    for (int32_t c = 1; c < classes; ++c) {
        const Vec x = load(logits + ptrdiff_t(c) * lanes);
        most = x > most ? x : most;
    }
    for (int32_t c = 0; c < classes; ++c) {
        const Vec e = exponential(load(logits + ptrdiff_t(c) * lanes) - most);
        store(logits + ptrdiff_t(c) * lanes, e);
        sum += e;
    }
    const Vec factor = scale / sum;
    for (int32_t c = 0; c < classes; ++c) {
        float* const x = logits + ptrdiff_t(c) * lanes;
        store(x, scale == 0.0f ? Vec{} : load(x) * factor);
    }
    store(largest, most);
    store(total, sum);
}

void softmax(float* logits, int32_t classes, const int32_t* labels, int32_t count, float scale, float* losses) {
    alignas(64) float of_label[lanes], largest[lanes], total[lanes];
    for (int32_t b = 0; b < count; ++b) of_label[b] = logits[ptrdiff_t(labels[b]) * lanes + b];
    for (int32_t b = 0; b < lanes; b += W) {
        const Int lane = count_up(Lanes{}) + b;
        const Vec weight = lane < count + Int{} ? all(scale) : Vec{};
        normalise(logits + b, classes, weight, largest + b, total + b);
    }
    for (int32_t b = 0; b < count; ++b) {
        losses[b] = std::log(total[b]) - (of_label[b] - largest[b]);
        logits[ptrdiff_t(labels[b]) * lanes + b] -= scale;
    }
}

LTH_INLINE Vec strip_sum(const float* row) {
    Vec sum = load(row);
    for (int v = 1; v < V; ++v) sum += load(row + v * W);
    return sum;
}

template <class Sink>
void bias_gradients(int32_t units, Batch batch, Sink sink) {
    for (int32_t unit = 0; unit < units; unit += W) {
        Vec total = {};
        for (int32_t s = 0; s < batch.strips; ++s) {
            const float* const row = batch.gradient + s * batch.gradient_stride + ptrdiff_t(unit) * lanes;
            Vec quads[W / 4];
            for (int q = 0; q < W / 4; ++q) {
                const float* const four = row + 4 * q * lanes;
                quads[q] = quad_sums(strip_sum(four), strip_sum(four + lanes), strip_sum(four + 2 * lanes),
                                     strip_sum(four + 3 * lanes));
            }
            total += sum_of_quads(quads);
        }
        sink(unit, total);
    }
}

}  // namespace
