// Checks for memory accesses that AddressSanitizer does not instrument: masked loads and stores, and tiles.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace lth {

// End the program with a report if one of these bytes must not be accessed. Does nothing without a sanitizer.
#if defined(__SANITIZE_ADDRESS__)
inline void touch(const void* begin, size_t bytes) {
    void* const wrong = bytes ? __asan_region_is_poisoned(const_cast<void*>(begin), bytes) : nullptr;
    if (wrong) (void)*static_cast<volatile const char*>(wrong);
}
#else
inline void touch(const void*, size_t) {}
#endif

}  // namespace lth
