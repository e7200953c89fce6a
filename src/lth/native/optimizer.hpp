// One optimizer step on a vector of weights whose gradient is still in a register. The formulas are torch's.
#pragma once

#include <type_traits>

#include "kernels.hpp"
#include "simd.hpp"

namespace {

using lth::Optimizer;
using lth::Parameters;
using lth::Step;

template <Optimizer optimizer>
LTH_INLINE void update(const Step& step, const Parameters& p, ptrdiff_t at, Vec gradient) {
    Vec value = load(p.value + at);
    gradient += step.decay * value;
    if constexpr (optimizer == Optimizer::sgd) {
        value -= step.rate * gradient;
    } else if constexpr (optimizer == Optimizer::momentum) {
        const Vec first = step.beta1 * load(p.first + at) + gradient;
        store(p.first + at, first);
        value -= step.rate * first;
    } else {
        Vec first = load(p.first + at), second = load(p.second + at);
        first += step.rest1 * (gradient - first);
        second = step.beta2 * second + (step.rest2 * gradient) * gradient;
        store(p.first + at, first);
        store(p.second + at, second);
        value -= step.rate * (first / (root(second) * step.inverse_root + step.epsilon));
    }
    store(p.value + at, value);
}

// Calls work with the optimizer as a compile-time constant.
template <class Work>
LTH_INLINE void with_optimizer(Optimizer optimizer, Work work) {
    switch (optimizer) {
        case Optimizer::sgd: return work(std::integral_constant<Optimizer, Optimizer::sgd>{});
        case Optimizer::momentum: return work(std::integral_constant<Optimizer, Optimizer::momentum>{});
        case Optimizer::adam: return work(std::integral_constant<Optimizer, Optimizer::adam>{});
    }
}

}  // namespace
