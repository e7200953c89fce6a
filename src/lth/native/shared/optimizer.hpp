// The optimizers that the compiled engines know.
#pragma once

namespace lth {

enum class Optimizer { sgd, momentum, nesterov, adam, adamw };

namespace {  // files that are compiled for different instruction sets must not share functions

constexpr bool is_adam(Optimizer optimizer) { return optimizer == Optimizer::adam || optimizer == Optimizer::adamw; }

// Whether weight decay shrinks the weights themselves, instead of being added to the gradient.
constexpr bool decouples_decay(Optimizer optimizer) { return optimizer == Optimizer::adamw; }

}  // namespace

}  // namespace lth
