// Optimizers by their names in recipes; lth/training/optimizers.py has the same names.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include "shared/optimizer.hpp"

namespace lth {

inline Optimizer optimizer_named(const std::string& name) {
    static const std::pair<const char*, Optimizer> known[] = {
        {"sgd", Optimizer::sgd},           {"momentum", Optimizer::momentum}, {"nesterov", Optimizer::nesterov},
        {"adam", Optimizer::adam},         {"adamw", Optimizer::adamw},
    };
    std::string names;
    for (const auto& [known_name, optimizer] : known) {
        if (name == known_name) return optimizer;
        names += std::string(names.empty() ? "" : ", ") + known_name;
    }
    throw std::invalid_argument("optimizer \"" + name + "\" is unknown; give one of: " + names);
}

}  // namespace lth
