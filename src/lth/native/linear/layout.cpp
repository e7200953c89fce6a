#include "layout.hpp"

#include <algorithm>
#include <limits>

namespace lth {

std::vector<Weight> survivors(const bool* mask, int32_t rows, int32_t columns) {
    std::vector<Weight> found;
    for (int32_t r = 0; r < rows; ++r)
        for (int32_t c = 0; c < columns; ++c)
            if (*mask++) found.push_back({r, c});
    return found;
}

namespace {

struct Block {
    int32_t first, id;
};

// A block's strips should stay in the first-level cache (112 rows of 64 floats are 28 of its 32 KiB), but the segments
// should be long enough to amortise their start. All blocks have about equal sizes.
int64_t columns_per_block(int64_t alive, double density) {
    constexpr double in_cache = 112, worth_starting = 14;
    const auto wanted = int64_t(std::max(in_cache, worth_starting / std::max(density, 1e-6)));
    const int64_t blocks = std::max<int64_t>(1, (alive + wanted - 1) / wanted);
    return (alive + blocks - 1) / blocks;
}

// Columns without weights belong to no block.
std::vector<Block> blocks_of(const std::vector<Weight>& weights, int32_t columns, double density) {
    std::vector<bool> alive(size_t(columns), false);
    for (const Weight& w : weights) alive[size_t(w.column)] = true;
    const int64_t size = columns_per_block(std::count(alive.begin(), alive.end(), true), density);
    std::vector<Block> blocks(size_t(columns), Block{0, 0});
    Block block{0, -1};
    for (int32_t c = 0, inside = 0; c < columns; ++c) {
        if (!alive[size_t(c)]) continue;
        const bool full = inside == size || c - block.first > std::numeric_limits<uint16_t>::max();
        if (block.id < 0 || full) block = {c, block.id + 1}, inside = 0;
        blocks[size_t(c)] = block;
        ++inside;
    }
    return blocks;
}

struct Run {
    Block block;
    int32_t row, count;
    int64_t begin;
};

std::vector<Run> runs_of(const std::vector<Weight>& weights, const std::vector<Block>& blocks) {
    std::vector<Run> runs;
    for (size_t k = 0; k < weights.size(); ++k) {
        const Block block = blocks[size_t(weights[k].column)];
        if (runs.empty() || runs.back().row != weights[k].row || runs.back().block.id != block.id ||
            runs.back().count == Segment::longest) {
            runs.push_back({block, weights[k].row, 0, int64_t(k)});
        }
        ++runs.back().count;
    }
    return runs;
}

}  // namespace

SparseLayout sparse_layout(const std::vector<Weight>& weights, int32_t columns, double density) {
    std::vector<Run> runs = runs_of(weights, blocks_of(weights, columns, density));
    // Sorted by length within a block, so that the processor predicts the ends of the kernels' inner loops.
    std::stable_sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) {
        return a.block.id != b.block.id ? a.block.id < b.block.id : a.count > b.count;
    });
    SparseLayout layout;
    layout.place.resize(weights.size());
    for (const Run& run : runs) {
        layout.segments.push_back({run.row, run.block.first, run.count});
        for (int64_t k = run.begin; k < run.begin + run.count; ++k) {
            layout.place[size_t(k)] = int64_t(layout.columns.size());
            layout.columns.push_back(uint16_t(weights[size_t(k)].column - run.block.first));
        }
        layout.columns.resize(size_t(round_up(layout.size(), 4)));
    }
    return layout;
}

DenseLayout dense_layout(const std::vector<Weight>& weights, int32_t rows, int32_t columns, int32_t row_tile) {
    DenseLayout layout;
    layout.panels = {int32_t(round_up(rows, row_tile)), int32_t(round_up(columns, 16))};
    layout.mask.resize(size_t(layout.size() / 32 + 1));
    for (const Weight& w : weights) {
        const int32_t start = w.column / Panels::panel * Panels::panel;
        const int32_t width = std::min(int32_t(Panels::panel), layout.panels.columns - start);
        const int64_t place = int64_t(start) * layout.panels.rows + int64_t(w.row) * width + (w.column - start);
        layout.place.push_back(place);
        layout.mask[size_t(place / 32)] |= 1U << (place % 32);
    }
    return layout;
}

}  // namespace lth
