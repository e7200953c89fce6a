// Sparse layers: time proportional to the number of surviving weights.
#pragma once

#include "optimizer.hpp"

namespace {

using lth::Batch;
using lth::Segment;
using lth::SparseRows;

struct Strip {
    Vec part[V];
};

LTH_INLINE Strip load_strip(const float* p) {
    Strip strip;
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) strip.part[v] = load(p + v * W);
    return strip;
}

LTH_INLINE void add_product(Strip& sum, Vec weight, const float* x) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum.part[v] += weight * load(x + v * W);
}

// Two sums, so that a product waits for the second last one before it, not for the last.
LTH_INLINE void add_quad(Strip& even, Strip& odd, const float* values, const uint16_t* columns, const float* block) {
    Vec weight[4];
    spread(values, weight);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) add_product(j % 2 ? odd : even, weight[j], block + size_t(columns[j]) * lanes);
}

// out[row] += sum over the row's weights of weight * in[column], for a strip of examples.
void sparse_accumulate(SparseRows matrix, const float* values, const float* in, float* out) {
    const uint16_t* columns = matrix.columns;
    for (int64_t s = 0; s < matrix.segment_count; ++s) {
        const Segment segment = matrix.segments[s];
        const float* const block = in + ptrdiff_t(segment.base) * lanes;
        float* const row = out + ptrdiff_t(segment.row) * lanes;
        Strip even = load_strip(row), odd = {};
        int32_t left = segment.count;
        for (; left >= 8; left -= 8, columns += 8, values += 8) {
            add_quad(even, odd, values, columns, block);
            add_quad(even, odd, values + 4, columns + 4, block);
        }
        for (; left > 0; left -= 4, columns += 4, values += 4) {
            if (left >= 4) {
                add_quad(even, odd, values, columns, block);
            } else {
                for (int32_t j = 0; j < left; ++j) add_product(even, all(values[j]), block + size_t(columns[j]) * lanes);
            }
        }
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) store(row + v * W, even.part[v] + odd.part[v]);
    }
}

LTH_INLINE Vec dot(const Strip& a, const float* b) {
    Vec sum = a.part[0] * load(b);
#pragma GCC unroll 4
    for (int v = 1; v < V; ++v) sum += a.part[v] * load(b + v * W);
    return sum;
}

// The gradient of a weight is the dot product of two strips: here of N <= 4 weights of a row, up to quad_sums.
template <int N>
LTH_INLINE Vec gradient_quad(const Strip& gradient, const uint16_t* columns, const float* block) {
    Vec product[4] = {};
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) product[j] = dot(gradient, block + size_t(columns[j]) * lanes);
    return quad_sums(product[0], product[1], product[2], product[3]);
}

LTH_INLINE Vec gradient_of(int32_t weights, const Strip& gradient, const uint16_t* columns, const float* block) {
    switch (weights) {
        case 1: return gradient_quad<1>(gradient, columns, block);
        case 2: return gradient_quad<2>(gradient, columns, block);
        case 3: return gradient_quad<3>(gradient, columns, block);
        default: return gradient_quad<4>(gradient, columns, block);
    }
}

// Gradients of a segment, in quads.
LTH_INLINE void gradients_of(Segment segment, const uint16_t* columns, const Batch& batch, Vec* quads) {
    for (int32_t s = 0; s < batch.strips; ++s) {
        const Strip gradient = load_strip(batch.gradient + s * batch.gradient_stride + ptrdiff_t(segment.row) * lanes);
        const float* const block = batch.input + s * batch.input_stride + ptrdiff_t(segment.base) * lanes;
        int32_t j = 0;
        for (; j + 8 <= segment.count; j += 8) {
            Vec sums[2];
#pragma GCC unroll 4
            for (int q = 0; q < 2; ++q) sums[q] = gradient_quad<4>(gradient, columns + j + 4 * q, block);
#pragma GCC unroll 4
            for (int q = 0; q < 2; ++q) quads[j / 4 + q] = s == 0 ? sums[q] : quads[j / 4 + q] + sums[q];
        }
        for (; j < segment.count; j += 4) {
            const Vec sums = gradient_of(segment.count - j, gradient, columns + j, block);
            quads[j / 4] = s == 0 ? sums : quads[j / 4] + sums;
        }
    }
}

// The gradient of each weight is passed to the sink. Quads are collected, across rows, until there are many vectors of
// them.
template <class Sink>
void sparse_gradients(SparseRows matrix, Batch batch, Sink sink) {
    constexpr int per_vector = W / 4, enough = 16;
    Vec quads[enough + Segment::longest / 4 + per_vector];
    const uint16_t* columns = matrix.columns;
    const int64_t lines = matrix.segment_count ? batch.soon_count / matrix.segment_count + 1 : 0;
    ptrdiff_t at = 0;
    int32_t waiting = 0;
    const auto finish = [&] {
        int32_t done = 0;
        for (; done + per_vector <= waiting; done += per_vector, at += W) {
            sink(at, sum_of_quads(quads + done));
        }
        for (int32_t left = done; left < waiting; ++left) quads[left - done] = quads[left];
        waiting -= done;
    };
    for (int64_t s = 0; s < matrix.segment_count; ++s) {
        const Segment segment = matrix.segments[s];
        const int32_t count = (segment.count + 3) / 4;
        gradients_of(segment, columns, batch, quads + waiting);
        columns += 4 * count, waiting += count;
        for (int64_t i = s * lines; i < (s + 1) * lines && i < batch.soon_count; ++i) __builtin_prefetch(batch.soon[i]);
        if (waiting >= enough) finish();
    }
    while (waiting % per_vector != 0) quads[waiting++] = Vec{};
    finish();
}

}  // namespace
