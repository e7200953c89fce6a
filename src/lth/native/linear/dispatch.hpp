// The kernels that this processor can run.
#pragma once

#include <string>
#include <vector>

#include "kernels.hpp"

namespace lth {

std::vector<const Kernels*> usable_kernels();                 // best first
const Kernels& kernels_named(const std::string& name);        // "" selects the best; throws std::invalid_argument

}  // namespace lth
