// One optimizer step on float32 parameters of a bfloat16 computation, by torch's formulas.
#pragma once

#include "shape.hpp"
#include "shared/optimizer.hpp"

namespace lth::conv {

struct Update {
    Optimizer optimizer;
    float lr, decay, momentum, beta1, beta2, epsilon, correction1, correction2;  // bias corrections: 1 - beta^t
};

// One update of `count` parameters. `gradient` is float or (`narrow`) bfloat16. Where `mask` is given and 0, gradient
// and decay count as 0. `copy`, if given, receives the new values as bfloat16.
void update(const Update&, int64_t count, const void* gradient, bool narrow, const uint8_t* mask, float* value,
            float* first, float* second, bf16* copy);

}  // namespace lth::conv
