// Winograd's transforms, for winograd.cpp only, which is compiled with AVX512_BF16.
//
// The matrices for tiles of side x side outputs: a tile is A' ((G w G') * (B' d B)) A for a kernel w and a patch d of
// patch x patch inputs, where * multiplies by position. From the Toom-Cook scheme at the given points.
#pragma once

#include <utility>

#include "products.hpp"

namespace lth::conv {

namespace {

struct Two {  // 0, 1, -1, infinity
    static constexpr int side = 2, patch = 4;
    struct OutputT {
        static constexpr int rows = 2, columns = 4;
        static constexpr float at[rows][columns] = {{1, 1, 1, 0}, {0, 1, -1, -1}};
    };
    struct Kernel {
        static constexpr int rows = 4, columns = 3;
        static constexpr float at[rows][columns] = {{1, 0, 0}, {0.5f, 0.5f, 0.5f}, {0.5f, -0.5f, 0.5f}, {0, 0, 1}};
    };
    struct InputT {
        static constexpr int rows = 4, columns = 4;
        static constexpr float at[rows][columns] = {{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, 1, 0, -1}};
    };
};

struct Four {  // 0, p, -p, q, -q, infinity: p q = 1 has the smallest error of those tried
    static constexpr int side = 4, patch = 6;
    static constexpr double p = 2.0 / 3, q = 3.0 / 2, pp = p * p, qq = q * q;
    static constexpr double of_p = 1 / (2 * pp * (pp - qq)), of_q = 1 / (2 * qq * (qq - pp));
    struct OutputT {
        static constexpr int rows = 4, columns = 6;
        static constexpr float at[rows][columns] = {{1, 1, 1, 1, 1, 0},
                                                    {0, float(p), float(-p), float(q), float(-q), 0},
                                                    {0, float(pp), float(pp), float(qq), float(qq), 0},
                                                    {0, float(p * pp), float(-p * pp), float(q * qq), float(-q * qq), 1}};
    };
    struct Kernel {
        static constexpr int rows = 6, columns = 3;
        static constexpr float at[rows][columns] = {{float(1 / (pp * qq)), 0, 0},
                                                    {float(of_p), float(of_p * p), float(of_p * pp)},
                                                    {float(of_p), float(-of_p * p), float(of_p * pp)},
                                                    {float(of_q), float(of_q * q), float(of_q * qq)},
                                                    {float(of_q), float(-of_q * q), float(of_q * qq)},
                                                    {0, 0, 1}};
    };
    struct InputT {
        static constexpr int rows = 6, columns = 6;
        static constexpr float at[rows][columns] = {{float(pp * qq), 0, float(-pp - qq), 0, 1, 0},
                                                    {0, float(-p * qq), float(-qq), float(p), 1, 0},
                                                    {0, float(p * qq), float(-qq), float(-p), 1, 0},
                                                    {0, float(-q * pp), float(-pp), float(q), 1, 0},
                                                    {0, float(q * pp), float(-pp), float(-q), 1, 0},
                                                    {0, float(pp * qq), 0, float(-pp - qq), 0, 1}};
    };
};

template <class M>
struct Plain {
    static constexpr int rows = M::rows, columns = M::columns;
    static constexpr float at(int i, int k) { return M::at[i][k]; }
};

template <class M>
struct Turned {
    static constexpr int rows = M::columns, columns = M::rows;
    static constexpr float at(int i, int k) { return M::at[k][i]; }
};

// Row i of M times a column of vectors at distance `step`; M is a compile-time constant, so zeros and ones cost
// nothing.
template <class M, int i, int k = 0, bool begun = false>
inline __m512 row_times(const __m512* column, int step, __m512 sum = __m512()) {
    if constexpr (k == M::columns) {
        return sum;
    } else {
        constexpr float c = M::at(i, k);
        const __m512 x = column[k * step];
        if constexpr (c == 0.0f) return row_times<M, i, k + 1, begun>(column, step, sum);
        else if constexpr (!begun && c == 1.0f) return row_times<M, i, k + 1, true>(column, step, x);
        else if constexpr (!begun) return row_times<M, i, k + 1, true>(column, step, all(c) * x);
        else if constexpr (c == 1.0f) return row_times<M, i, k + 1, true>(column, step, sum + x);
        else if constexpr (c == -1.0f) return row_times<M, i, k + 1, true>(column, step, sum - x);
        else return row_times<M, i, k + 1, true>(column, step, _mm512_fmadd_ps(all(c), x, sum));
    }
}

template <class M, int... i>
inline void times(const __m512* column, int step, __m512* out, int out_step, std::integer_sequence<int, i...>) {
    ((out[i * out_step] = row_times<M, i>(column, step)), ...);
}

// M x M'.
template <class M>
inline void both_sides(const __m512 (&x)[M::columns][M::columns], __m512 (&out)[M::rows][M::rows]) {
    constexpr auto every = std::make_integer_sequence<int, M::rows>{};
    __m512 half[M::rows][M::columns];
    for (int j = 0; j < M::columns; ++j) times<M>(&x[0][j], M::columns, &half[0][j], M::columns, every);
    for (int i = 0; i < M::rows; ++i) times<M>(half[i], 1, out[i], 1, every);
}

}  // namespace

}  // namespace lth::conv
