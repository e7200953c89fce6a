// Dense layers: matrix products in register tiles. Above lth::dense_above they are faster than the sparse kernels.
#pragma once

#include "optimizer.hpp"

namespace {

using lth::Batch;
using lth::Panels;

template <class Work>
LTH_INLINE void for_each_panel(Panels matrix, Work work) {
    for (int32_t start = 0; start < matrix.columns; start += Panels::panel) {
        const int32_t left = matrix.columns - start;
        work(start, left < Panels::panel ? left : int32_t(Panels::panel));
    }
}

// The columns of a panel in which some example is not 0. More than a third of MNIST's pixels are black in a whole
// batch.
struct Lit {
    int32_t count = 0;
    int32_t column[Panels::panel];

    LTH_INLINE Lit(const float* in, int32_t width) {
        for (int32_t k = 0; k < width; ++k) {
            Int any = Int{};
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) any |= load(in + k * lanes + v * W) != Vec{};
            column[count] = k;
            count += any_of(any);
        }
    }
};

template <int R>
LTH_INLINE void accumulate_tile(const float* weights, int32_t width, const Lit& lit, const float* in, float* out) {
    Vec sum[R][V];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[r][v] = load(out + r * lanes + v * W);
    for (int32_t i = 0; i < lit.count; ++i) {
        const int32_t k = lit.column[i];
        Vec x[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) x[v] = load(in + k * lanes + v * W);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const Vec weight = all(weights[r * width + k]);
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) sum[r][v] += weight * x[v];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) store(out + r * lanes + v * W, sum[r][v]);
}

// out[row] += weights[row] . in
void dense_accumulate(Panels matrix, const float* values, const float* in, float* out) {
    for_each_panel(matrix, [=](int32_t start, int32_t width) {
        const float* const panel = values + ptrdiff_t(start) * matrix.rows;
        const Lit lit(in + ptrdiff_t(start) * lanes, width);
        for (int32_t row = 0; row < matrix.rows; row += row_tile) {
            accumulate_tile<row_tile>(panel + row * width, width, lit, in + start * lanes, out + row * lanes);
        }
    });
}

// in_gradient[column] = sum over rows of weights[row][column] * gradient[row]
void dense_backpropagate(Panels matrix, const float* values, const float* gradient, float* in_gradient) {
    for_each_panel(matrix, [=](int32_t start, int32_t width) {
        const float* const panel = values + ptrdiff_t(start) * matrix.rows;
        for (int32_t column = 0; column < width; column += column_tile) {
            Vec sum[column_tile][V] = {};
            for (int32_t row = 0; row < matrix.rows; ++row) {
#pragma GCC unroll 8
                for (int c = 0; c < column_tile; ++c) {
                    const Vec weight = all(panel[row * width + column + c]);
#pragma GCC unroll 4
                    for (int v = 0; v < V; ++v) sum[c][v] += weight * load(gradient + row * lanes + v * W);
                }
            }
            float* const out = in_gradient + (start + column) * lanes;
#pragma GCC unroll 8
            for (int c = 0; c < column_tile; ++c)
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v) store(out + c * lanes + v * W, sum[c][v]);
        }
    });
}

// Gradients of row_tile rows by C vectors of columns, for exactly the examples of the batch.
template <int C>
LTH_INLINE void gradient_tile(const Batch& batch, const float* natural, int32_t width, ptrdiff_t row, Vec* gradient) {
    Vec sum[row_tile][C] = {};
    for (int32_t first = 0, s = 0; first < batch.examples; first += lanes, ++s) {
        const int32_t count = batch.examples - first < lanes ? batch.examples - first : lanes;
        const float* const outer = batch.gradient + s * batch.gradient_stride + row * lanes;
        for (int32_t b = 0; b < count; ++b, natural += width) {
            Vec x[C];
#pragma GCC unroll 4
            for (int c = 0; c < C; ++c) x[c] = load(natural + c * W);
#pragma GCC unroll 8
            for (int r = 0; r < row_tile; ++r) {
                const Vec scale = all(outer[r * lanes + b]);
#pragma GCC unroll 4
                for (int c = 0; c < C; ++c) sum[r][c] += scale * x[c];
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < row_tile; ++r)
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) gradient[r * C + c] = sum[r][c];
}

template <int C, class Sink>
LTH_INLINE void sink_tile(const Vec* gradient, const uint32_t* mask, int32_t width, ptrdiff_t at, const Sink& sink) {
    for (int r = 0; r < row_tile; ++r) {
        for (int c = 0; c < C; ++c) {
            const ptrdiff_t place = at + r * width + c * W;
            sink(place, keep(mask[place / 32] >> (place % 32), gradient[r * C + c]));
        }
    }
}

template <int C, class Sink>
void sink_columns(Panels matrix, const uint32_t* mask, const Batch& batch, const Sink& sink, int32_t start,
                  int32_t width, int32_t column) {
    const float* const natural = batch.natural + ptrdiff_t(start) * batch.examples + column;
    for (int32_t row = 0; row < matrix.rows; row += row_tile) {
        const ptrdiff_t at = ptrdiff_t(start) * matrix.rows + row * width + column;
        sink.prefetch(at + row_tile * width, row_tile * width);
        Vec gradient[row_tile * C];
        gradient_tile<C>(batch, natural, width, row, gradient);
        sink_tile<C>(gradient, mask, width, at, sink);
    }
}

// The gradient of each weight is passed to the sink.
template <class Sink>
void dense_gradients(Panels matrix, const uint32_t* mask, Batch batch, Sink sink) {
    for_each_panel(matrix, [&](int32_t start, int32_t width) {
        for (int32_t column = 0; column < width; column += lanes) {
            const int32_t left = (width - column) / W;
            const auto columns = left >= 4   ? sink_columns<4, Sink>
                                 : left == 3 ? sink_columns<3, Sink>
                                 : left == 2 ? sink_columns<2, Sink>
                                             : sink_columns<1, Sink>;
            columns(matrix, mask, batch, sink, start, width, column);
        }
    });
}

}  // namespace
