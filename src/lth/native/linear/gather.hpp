// Convert bytes, one example after the other, to floats in the layouts of the kernels.
#pragma once

#include <cstring>

#include "kernels.hpp"
#include "simd.hpp"

namespace {

using lth::Panels;

constexpr int G = 16;  // features and examples that are transposed together

LTH_INLINE Bytes load_bytes(const uint8_t* p, int32_t count) {
    Bytes bytes = {};
    if (count >= G) {
        std::memcpy(&bytes, p, G);
    } else {
        std::memcpy(&bytes, p, size_t(count));
    }
    return bytes;
}

template <int... L>
LTH_INLINE Bytes interleave_low(Bytes a, Bytes b, std::integer_sequence<int, L...>) {
    return LTH_SHUFFLE(Bytes, a, b, (L / 2 + L % 2 * G)...);
}

template <int... L>
LTH_INLINE Bytes interleave_high(Bytes a, Bytes b, std::integer_sequence<int, L...>) {
    return LTH_SHUFFLE(Bytes, a, b, (G / 2 + L / 2 + L % 2 * G)...);
}

// Four perfect shuffles of the rows transpose 16 x 16.
LTH_INLINE void transpose(Bytes (&tile)[G]) {
    using All = std::make_integer_sequence<int, G>;
#pragma GCC unroll 4
    for (int round = 0; round < 4; ++round) {
        Bytes next[G];
#pragma GCC unroll 8
        for (int j = 0; j < G / 2; ++j) {
            next[2 * j] = interleave_low(tile[j], tile[j + G / 2], All{});
            next[2 * j + 1] = interleave_high(tile[j], tile[j + G / 2], All{});
        }
#pragma GCC unroll 16
        for (int j = 0; j < G; ++j) tile[j] = next[j];
    }
}

void gather_bytes(const void* const* rows, int32_t count, int32_t features, const uint8_t* alive, float* strip) {
    const auto* const examples = reinterpret_cast<const uint8_t* const*>(rows);
    for (int32_t feature = 0; feature < features; feature += G) {
        const int32_t width = features - feature < G ? features - feature : G;
        bool any = false;
        for (int32_t j = 0; j < width; ++j) any |= alive[feature + j] != 0;
        if (!any) continue;
        for (int32_t first = 0; first < lanes; first += G) {
            Bytes tile[G];
#pragma GCC unroll 16
            for (int b = 0; b < G; ++b) {
                tile[b] = first + b < count ? load_bytes(examples[first + b] + feature, width) : Bytes{};
            }
            transpose(tile);
            float* const out = strip + ptrdiff_t(feature) * lanes + first;
            for (int32_t j = 0; j < width; ++j) store_scaled(out + j * lanes, tile[j]);
        }
    }
}

void gather_floats(const void* const* rows, int32_t count, int32_t features, const uint8_t* alive, float* strip) {
    for (int32_t b = 0; b < lanes; ++b) {
        const float* const example = b < count ? static_cast<const float*>(rows[b]) : nullptr;
        for (int32_t feature = 0; feature < features; ++feature) {
            if (alive[feature]) strip[ptrdiff_t(feature) * lanes + b] = example ? example[feature] : 0.0f;
        }
    }
}

// The position of a column of the first example in a matrix of `rows` examples in panels, and the stride to the next.
struct Place {
    ptrdiff_t first;
    int32_t step;
};

LTH_INLINE Place place_of(int32_t column, int32_t columns, int32_t rows) {
    const int32_t start = column / Panels::panel * Panels::panel, left = (columns + G - 1) / G * G - start;
    return {ptrdiff_t(start) * rows + (column - start), left < Panels::panel ? left : int32_t(Panels::panel)};
}

void natural_bytes(const void* const* rows, int32_t count, int32_t features, float* natural) {
    const auto* const examples = reinterpret_cast<const uint8_t* const*>(rows);
    for (int32_t feature = 0; feature < features; feature += G) {
        const int32_t width = features - feature < G ? features - feature : G;
        const Place place = place_of(feature, features, count);
        float* out = natural + place.first;
        for (int32_t b = 0; b < count; ++b, out += place.step) {
            store_scaled(out, load_bytes(examples[b] + feature, width));
        }
    }
}

void natural_floats(const void* const* rows, int32_t count, int32_t features, float* natural) {
    for (int32_t feature = 0; feature < features; ++feature) {
        const Place place = place_of(feature, features, count);
        for (int32_t b = 0; b < count; ++b) {
            natural[place.first + b * place.step] = static_cast<const float*>(rows[b])[feature];
        }
    }
}

void natural_strip(const float* strip, int32_t units, int32_t first, int32_t count, int32_t rows, float* natural) {
    for (int32_t unit = 0; unit < units; ++unit) {
        const Place place = place_of(unit, units, rows);
        float* const out = natural + place.first + ptrdiff_t(first) * place.step;
        for (int32_t b = 0; b < count; ++b) out[b * place.step] = strip[ptrdiff_t(unit) * lanes + b];
    }
}

}  // namespace
