// Arrays aligned to cache lines, as the kernels' loads and stores require.
#pragma once

#include <stdlib.h>  // posix_memalign, because the oldest macOS that Python supports lacks aligned new

#include <cstddef>
#include <new>
#include <vector>

namespace lth {

template <class T>
struct CacheLineAllocator {
    using value_type = T;
    static constexpr std::size_t line = 64;

    CacheLineAllocator() = default;
    template <class U>
    CacheLineAllocator(const CacheLineAllocator<U>&) {}

    T* allocate(std::size_t n) {
        void* p = nullptr;
        if (posix_memalign(&p, line, n * sizeof(T)) != 0) throw std::bad_alloc();
        return static_cast<T*>(p);
    }
    void deallocate(T* p, std::size_t) { free(p); }
    bool operator==(const CacheLineAllocator&) const { return true; }
    bool operator!=(const CacheLineAllocator&) const { return false; }
};

template <class T>
using Aligned = std::vector<T, CacheLineAllocator<T>>;

}  // namespace lth
