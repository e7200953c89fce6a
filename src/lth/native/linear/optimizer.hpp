// Consumers of a vector of gradients that is still in a register: an optimizer step, or a copy to memory. The formulas
// are torch's.
#pragma once

#include "kernels.hpp"
#include "simd.hpp"

namespace {

using lth::decouples_decay;
using lth::is_adam;
using lth::Optimizer;
using lth::Parameters;
using lth::Step;

// Weights and moments of a layer may exceed the second-level cache, and the hardware does not predict accesses by tile:
// prefetch the next tile while this one is computed.
LTH_INLINE void prefetch(const float* p, int32_t floats) {
    for (int32_t i = 0; p && i < floats; i += 16) __builtin_prefetch(p + i, 1);
}

template <Optimizer optimizer>
LTH_INLINE void update(const Step& step, const Parameters& p, ptrdiff_t at, Vec gradient) {
    Vec value = load(p.value + at);
    if constexpr (decouples_decay(optimizer)) {
        value *= step.shrink;
    } else {
        gradient += step.decay * value;
    }
    if constexpr (optimizer == Optimizer::sgd) {
        value -= step.rate * gradient;
    } else if constexpr (optimizer == Optimizer::momentum) {
        const Vec first = step.beta1 * load(p.first + at) + gradient;
        store(p.first + at, first);
        value -= step.rate * first;
    } else if constexpr (optimizer == Optimizer::nesterov) {
        const Vec first = step.beta1 * load(p.first + at) + gradient;
        store(p.first + at, first);
        value -= step.rate * (gradient + step.beta1 * first);
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

// Sinks of gradients; `prefetch` prefetches what a sink will read from the places from `at` on. They are passed by
// value, so that the compiler knows that no store changes them and keeps their members in registers.

template <Optimizer optimizer>
struct Update {
    Step step;
    Parameters parameters;

    LTH_INLINE void operator()(ptrdiff_t at, Vec gradient) const { update<optimizer>(step, parameters, at, gradient); }
    LTH_INLINE void prefetch(ptrdiff_t at, int32_t floats) const {
        ::prefetch(parameters.value + at, floats);
        if (optimizer != Optimizer::sgd) ::prefetch(parameters.first + at, floats);
        if (is_adam(optimizer)) ::prefetch(parameters.second + at, floats);
    }
};

struct Keep {
    float* gradient;

    LTH_INLINE void operator()(ptrdiff_t at, Vec of_weights) const { store(gradient + at, of_weights); }
    LTH_INLINE void prefetch(ptrdiff_t at, int32_t floats) const { ::prefetch(gradient + at, floats); }
};

// Calls work with a sink that changes the weights; its optimizer is a compile-time constant.
template <class Work>
LTH_INLINE void with_update(const Step& step, const Parameters& parameters, Work work) {
    switch (step.optimizer) {
        case Optimizer::sgd: return work(Update<Optimizer::sgd>{step, parameters});
        case Optimizer::momentum: return work(Update<Optimizer::momentum>{step, parameters});
        case Optimizer::nesterov: return work(Update<Optimizer::nesterov>{step, parameters});
        case Optimizer::adam: return work(Update<Optimizer::adam>{step, parameters});
        case Optimizer::adamw: return work(Update<Optimizer::adamw>{step, parameters});
    }
}

}  // namespace
