// The optimizers of the compiled engines.
#pragma once

namespace lth {

enum class Optimizer { sgd, momentum, nesterov, adam, adamw };

namespace {  // internal linkage: files compiled for different instruction sets must not share functions

constexpr bool is_adam(Optimizer optimizer) { return optimizer == Optimizer::adam || optimizer == Optimizer::adamw; }

// Whether weight decay shrinks the weights directly instead of being added to the gradient.
constexpr bool decouples_decay(Optimizer optimizer) { return optimizer == Optimizer::adamw; }

}  // namespace

}  // namespace lth
