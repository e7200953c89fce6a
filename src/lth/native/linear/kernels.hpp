// The arithmetic of training as a table of functions: one table per instruction set, chosen at run time.
//
// Activations and their gradients are transposed, in strips: `lanes` adjacent examples, with one row of lanes per unit.
// One weight is then multiplied with a whole strip by one broadcast, whatever the weights around it. Lanes beyond the
// batch contain finite numbers in the forward and zeros in the backward pass, so kernels need not know the batch size.
#pragma once

#include <cstddef>
#include <cstdint>

#include "shared/optimizer.hpp"

namespace lth {

// A segment of surviving weights: all those of one row (an output unit) within one block of columns (inputs). Column j
// of the segment is base + columns[...]: 16 bits are enough within a block. The next segment begins at the next
// multiple of four; the gap is never read.
struct Segment {
    static constexpr int32_t longest = 256;
    int32_t row, base, count;
};

struct SparseRows {
    const Segment* segments;
    int64_t segment_count;
    const uint16_t* columns;  // of all segments, in order, like the weights
};

// A dense matrix in panels of `panel` columns (the last one may be narrower), ordered by panel, row, column.
struct Panels {
    static constexpr int panel = 64;
    int32_t rows, columns;  // padded: rows to row_tile, columns to 16
};

struct Parameters {
    float *value, *first, *second;  // the moments of the optimizer, else null
};

// The inputs of an update besides the gradient. Adam's bias corrections are folded into rate and inverse_root.
struct Step {
    Optimizer optimizer;
    float rate, decay, shrink;         // decoupled weight decay multiplies weights by shrink
    float beta1, rest1, beta2, rest2;  // rest: 1 - beta, rounded once; beta1 is also the momentum of SGD
    float inverse_root, epsilon;
};

// Inputs of a layer and gradients of its outputs, over all strips of a batch.
struct Batch {
    int32_t examples, strips;
    const float *input, *gradient;              // transposed, in strips
    ptrdiff_t input_stride, gradient_stride;    // floats between strips
    const float* natural;                       // inputs by example, in panels; for dense layers only
    const void* const* soon;                    // the data of the next batch, one pointer per cache line,
    int64_t soon_count;                         // which sparse_update prefetches
};

// Unit u of example b survives dropout iff hash(hash(b * units + u ^ key0) + key1) >= threshold (network.cpp has the
// full definition).
struct Dropout {
    uint32_t key0, key1, threshold;
    float scale;  // 1 / (1 - p); 1 without dropout
};

struct Kernels {
    const char* name;
    int32_t lanes, row_tile;

    // The live features of up to `lanes` examples, transposed; bytes are scaled to [0, 1].
    void (*gather_bytes)(const void* const* examples, int32_t count, int32_t features, const uint8_t* alive,
                         float* strip);
    void (*gather_floats)(const void* const* examples, int32_t count, int32_t features, const uint8_t* alive,
                          float* strip);
    // All features by example, in panels of `count` rows.
    void (*natural_bytes)(const void* const* examples, int32_t count, int32_t features, float* natural);
    void (*natural_floats)(const void* const* examples, int32_t count, int32_t features, float* natural);
    // The units of a strip by example: examples first to first + count of `rows`.
    void (*natural_strip)(const float* strip, int32_t units, int32_t first, int32_t count, int32_t rows,
                          float* natural);

    void (*sparse_accumulate)(SparseRows, const float* values, const float* in, float* out);
    void (*sparse_update)(SparseRows, Batch, Step, Parameters);
    void (*dense_accumulate)(Panels, const float* values, const float* in, float* out);
    void (*dense_backpropagate)(Panels, const float* values, const float* gradient, float* in_gradient);
    void (*dense_update)(Panels, const uint32_t* mask, Batch, Step, Parameters);
    void (*bias_update)(int32_t units, Batch, Step, Parameters);

    // The same in two steps, for optimizers that need the whole gradient before a weight changes: gradients by place, 0
    // where pruned, then a step along `scale` times the gradients of `places` places, in whole vectors.
    void (*sparse_gradient)(SparseRows, Batch, float* gradient);
    void (*dense_gradient)(Panels, const uint32_t* mask, Batch, float* gradient);
    void (*bias_gradient)(int32_t units, Batch, float* gradient);
    void (*step)(int64_t places, const float* gradient, float scale, Step, Parameters);

    void (*fill)(const float* bias, int32_t units, float* out);
    void (*activate)(float* out, int32_t units, int32_t first_example, Dropout);
    void (*deactivate)(const float* activation, float* gradient, int32_t units, float scale);
    // Losses of the strip's first `count` examples; the logits become scale times their gradients.
    void (*softmax)(float* logits, int32_t classes, const int32_t* labels, int32_t count, float scale, float* losses);
};

// Null if the compiler or the architecture lacks these instructions.
const Kernels* kernels_avx512();
const Kernels* kernels_avx2();
const Kernels* kernels_plain();

}  // namespace lth
