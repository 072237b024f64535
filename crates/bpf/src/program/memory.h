/* Reading the target's memory: numbers, objects and hashes of bytes. Each read takes some 0.1 us, whatever its size, so
 * fields that lie close together are copied at once. */
#ifndef PROFILER_MEMORY_H
#define PROFILER_MEMORY_H

#include "records.h"

static ALWAYS_INLINE const void *at(u64 address) { return (const void *)address; }

static ALWAYS_INLINE u64 read_pointer(u64 address) {
    u64 value = 0;
    bpf_probe_read_user(&value, sizeof value, at(address));
    return value;
}

/* The number at `offset` of a copy of `size` bytes; 0 if the offset is beyond the copy. */
static ALWAYS_INLINE u64 field(const u8 *copy, u32 offset, u32 size) {
    if (offset > size - 8)
        return 0;
    return *(const u64 *)(copy + offset);
}

/* A byte of a frame; 0 if this version has no such byte. */
static ALWAYS_INLINE u8 byte(const u8 *frame, u32 offset) { return offset < FRAME_BYTES ? frame[offset] : 0; }

#define MIX(state, word)                                                                                               \
    do {                                                                                                               \
        state = (state ^ (word)) * 0x9e3779b97f4a7c15ull;                                                              \
        state ^= state >> 29;                                                                                          \
    } while (0)

/* Hashes the first `length` bytes of the head of a code object, padded with zeros to whole words, as `head_hash` of user
 * space does. Two words at a time, as each step depends on the one before. */
static ALWAYS_INLINE u64 hash(const u64 *words, u32 length) {
    u64 even = 0, odd = 0;
#pragma unroll
    for (u32 i = 0; i < HEAD_BYTES / 8; i += 2) {
        if (i * 8 >= length)
            break;
        MIX(even, words[i]);
        MIX(odd, words[i + 1]);
    }
    MIX(even, odd);
    return even;
}

/* Copies an object, or the part of it that lies on its first page; returns the number of bytes copied. */
static ALWAYS_INLINE u32 copy_object(u8 *into, u32 size, u64 address) {
    if (bpf_probe_read_user(into, size, at(address)) == 0)
        return size;
    u64 rest = KEEP(PAGE_BYTES - (address & (PAGE_BYTES - 1)));
    if (rest < size && bpf_probe_read_user(into, rest, at(address)) == 0)
        return rest;
    return 0;
}

/* A range of the target's memory that was copied at this instant. */
struct copied_range {
    const u8 *bytes;
    u64 start;
    u64 length;
};

/* A number in the target's memory: from the copied range, or else read by itself. */
static ALWAYS_INLINE u64 number_at(const struct copied_range *range, u64 address) {
    u64 offset = KEEP(address - range->start);
    if (offset < range->length && offset <= WINDOW_BYTES - 8)
        return *(const u64 *)(range->bytes + offset);
    return read_pointer(address);
}

#endif
