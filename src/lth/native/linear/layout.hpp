// The memory layout of a layer's surviving weights.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.hpp"

namespace lth {

struct Weight {
    int32_t row, column;
};

// Row-major: the order in which weights enter and leave the engine, whatever the internal layout.
std::vector<Weight> survivors(const bool* mask, int32_t rows, int32_t columns);

struct SparseLayout {
    std::vector<Segment> segments;
    std::vector<uint16_t> columns;
    std::vector<int64_t> place;  // position of each weight in the stream

    int64_t size() const { return int64_t(columns.size()); }
    SparseRows view() const { return {segments.data(), int64_t(segments.size()), columns.data()}; }
};

// Weights must be row-major. `density` is relative to rows x columns.
SparseLayout sparse_layout(const std::vector<Weight>& weights, int32_t columns, double density);

struct DenseLayout {
    Panels panels;
    std::vector<int64_t> place;
    std::vector<uint32_t> mask;  // one bit per place

    int64_t size() const { return int64_t(panels.rows) * panels.columns; }
};

DenseLayout dense_layout(const std::vector<Weight>& weights, int32_t rows, int32_t columns, int32_t row_tile);

inline int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

}  // namespace lth
